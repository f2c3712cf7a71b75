{# Money. Unit prices are rounded here, what an invoice asks for in statement.sql: amounts of lines are exact. #}

{# Quantity in millions, as prices count: DECIMAL(20,6) × DECIMAL(18,9) is DECIMAL(38,15), with no digit lost. #}
{% macro millions(quantity) -%}
    cast(({{ quantity }}) * cast(0.000001 as decimal(7, 6)) as decimal(20, 6))
{%- endmacro %}

{% macro line_amount(quantity, unit_price) -%}
    ({{ millions(quantity) }} * {{ unit_price }})
{%- endmacro %}

{# A unit price that was multiplied: by a rate of exchange, by an agreed factor. A half goes away from zero. #}
{% macro rounded_price(amount) -%}
    cast(round({{ amount }}, 9) as decimal(18, 9))
{%- endmacro %}

{# The part of a price that falls to the days `first_day` up to, not including, `end_day` of a span of `days` days,
   counted from 0. Parts that meet add up to the whole price exactly: each is the difference of two running shares,
   which are cut off after the fifteenth decimal. #}
{% macro prorated(price, first_day, end_day, days) -%}
    (
        cast(
            {{ whole_quotient(
                'cast(cast(' ~ price ~ ' as decimal(38, 9)) * 1000000000 as hugeint) * 1000000 * (' ~ end_day ~ ')', days
            ) }}
            - {{ whole_quotient(
                'cast(cast(' ~ price ~ ' as decimal(38, 9)) * 1000000000 as hugeint) * 1000000 * (' ~ first_day ~ ')', days
            ) }}
            as decimal(23, 0)
        ) * cast(0.000000000000001 as decimal(15, 15))
    )
{%- endmacro %}

{# What has run up of an amount after some of its units, cut off after the fifteenth digit. #}
{% macro running_share(amount, units, all_units) -%}
    (
        cast(
            {{ whole_quotient('cast(' ~ amount ~ ' * 1000000000000000 as hugeint) * (' ~ units ~ ')', all_units) }}
            as decimal(23, 0)
        ) * cast(0.000000000000001 as decimal(15, 15))
    )
{%- endmacro %}

{# The instant from which a price counts that its source does not date (pipelines/billing/catalogs.py, BEGINNING). #}
{% macro beginning_of_the_book() -%}
    timestamptz '2020-01-01 00:00:00+00'
{%- endmacro %}

{# Packages begun. #}
{% macro packages(units, package_size) -%}
    (({{ units }} + {{ package_size }} - 1) // {{ package_size }})
{%- endmacro %}
