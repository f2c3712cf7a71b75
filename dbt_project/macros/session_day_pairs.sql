{# The common table expressions `stored` (incremental runs) and `pairs` of a model of sessions and their days, from its
   `changed` sessions and what it `built` of them.

   A pair is never forgotten: a day that a session left must be built again without it, now and when it comes back. #}
{% macro session_day_pairs(date) -%}
{% if is_incremental() -%}
stored as (
    select * from {{ this }}
),

{% endif -%}
pairs as (
    select tenant_id, session_id, {{ date }}
    from built
    {% if is_incremental() -%}
    union
    select stored.tenant_id, stored.session_id, stored.{{ date }}
    from stored
    inner join changed using (tenant_id, session_id)
    {%- endif %}
)
{%- endmacro %}
