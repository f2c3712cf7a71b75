{# Money. The only place that rounds, and only unit prices: amounts of lines are exact products. #}

{# Quantity in millions, as prices count: DECIMAL(20,6) × DECIMAL(18,9) is DECIMAL(38,15), with no digit lost. #}
{% macro millions(quantity) -%}
    cast({{ quantity }} * cast(0.000001 as decimal(7, 6)) as decimal(20, 6))
{%- endmacro %}

{% macro line_amount(quantity, unit_price) -%}
    ({{ millions(quantity) }} * {{ unit_price }})
{%- endmacro %}

{# A unit price that was multiplied: by a rate of exchange, by an agreed factor. A half goes away from zero. #}
{% macro rounded_price(amount) -%}
    cast(round({{ amount }}, 9) as decimal(18, 9))
{%- endmacro %}
