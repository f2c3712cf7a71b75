{# The end of a model of sessions and their days, from its `changed` sessions and its `rows_of_days`: rows of sessions with
   a fingerprint each. `follows`: columns of the session that a day is built again with.

   A pair is never forgotten: a day that a session left must be built again without it, now and when it comes back. A day
   that stayed as it was keeps its _ingest_seq: a session that lives for months must not reopen all its days with every
   turn. #}
{% macro session_days(date='usage_date', follows=[]) -%}
built as (
    select
        rows_of_days.tenant_id,
        rows_of_days.session_id,
        rows_of_days.{{ date }},
        {{ fingerprint_of_all('rows_of_days._fingerprint') }} as _fingerprint
    from rows_of_days
    inner join changed using (tenant_id, session_id)
    group by rows_of_days.tenant_id, rows_of_days.session_id, rows_of_days.{{ date }}
),

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
),

current_pairs as (
    select
        pairs.tenant_id,
        pairs.session_id,
        {%- for column in follows %}
        {{ "coalesce(zones.time_zone, 'UTC')" if column == 'time_zone' else 'resolved.' ~ column }} as {{ column }},
        {%- endfor %}
        pairs.{{ date }},
        built._fingerprint,
        changed._ingest_seq
    from pairs
    inner join changed using (tenant_id, session_id)
    left join built using (tenant_id, session_id, {{ date }})
    {%- if follows %}
    left join {{ ref('int_sessions__tree_resolved') }} as resolved using (tenant_id, session_id)
    {%- endif %}
    {%- if 'time_zone' in follows %}
    left join {{ ref('int_tenants__time_zones') }} as zones using (tenant_id)
    {%- endif %}
)

select
    current_pairs.session_id,
    current_pairs.tenant_id,
    {%- for column in follows %}
    current_pairs.{{ column }},
    {%- endfor %}
    current_pairs.{{ date }},
    current_pairs._fingerprint,
    {% if is_incremental() -%}
    case
        when stored._fingerprint is not distinct from current_pairs._fingerprint
            {%- for column in follows %}
            and stored.{{ column }} is not distinct from current_pairs.{{ column }}
            {%- endfor %}
            then coalesce(stored._ingest_seq, current_pairs._ingest_seq)
        else current_pairs._ingest_seq
    end as _ingest_seq
    {%- else -%}
    current_pairs._ingest_seq
    {%- endif %}
from current_pairs
{% if is_incremental() -%}
left join stored using (tenant_id, session_id, {{ date }})
{%- endif %}
{%- endmacro %}
