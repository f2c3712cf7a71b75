{# What a model has to look at again: queries of keys with the load that changed them. A model's SQL and the delete of
   `replace_changed` both render the same query, so they cannot disagree.

   The watermark is the target's own max(_ingest_seq): a model that failed catches up in its next run, whatever the
   others did. A key that has no row any more leaves the watermark where it was: it is looked at again, to no effect. #}

{% macro watermark() -%}
    {%- if is_incremental() -%}
    (select coalesce(max(_ingest_seq), -1) from {{ this }})
    {%- else -%}
    -1
    {%- endif -%}
{%- endmacro %}

{# Sessions that a load since the watermark brought rows of; all of them in a full refresh. #}
{% macro changed_sessions() %}
    select
        tenant_id,
        session_id,
        max(_ingest_seq) as _ingest_seq
    from {{ ref('stg_wire__touched_sessions') }}
    where _ingest_seq > {{ watermark() }}
    group by tenant_id, session_id
{% endmacro %}

{# The same, and sessions whose user, colony or root became another one through rows of other sessions. #}
{% macro changed_or_moved_sessions() %}
    select
        tenant_id,
        session_id,
        max(_ingest_seq) as _ingest_seq
    from (
        {{ changed_sessions() }}
        {% if is_incremental() %}
        union all
        select distinct
            stored.tenant_id,
            stored.session_id,
            (select max(_ingest_seq) from {{ ref('stg_wire__touched_sessions') }}) as _ingest_seq
        from {{ this }} as stored
        left join {{ ref('int_sessions__tree_resolved') }} as resolved
            on stored.tenant_id = resolved.tenant_id
            and stored.session_id = resolved.session_id
        where stored.user_id is distinct from resolved.user_id
            or stored.colony_id is distinct from resolved.colony_id
            or stored.root_session_id is distinct from resolved.root_session_id
        {% endif %}
    ) as candidates
    group by tenant_id, session_id
{% endmacro %}

{# Days on which any session changed, or used to have rows before it changed. #}
{% macro changed_days() %}
    select
        tenant_id,
        usage_date,
        max(_ingest_seq) as _ingest_seq
    from {{ ref('int_usage__session_days') }}
    where _ingest_seq > {{ watermark() }}
    group by tenant_id, usage_date
{% endmacro %}
