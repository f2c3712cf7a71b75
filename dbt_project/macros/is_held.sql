{# Whether a turn is held: its time lies more than ten minutes after its arrival, which is the store's clock, and nobody
   has looked at it (`apiary held release`). Billed by its own claim it would land in a period that nobody expects.
   The query joins stg_wire__released as `released`. #}
{% macro is_held(occurred_at, received_at) -%}
    (
        released.turn_id is null
        and coalesce({{ to_micros(occurred_at) }} > {{ to_micros(received_at) }} + 600000000, false)
    )
{%- endmacro %}
