{{
    config(
        materialized='incremental',
        incremental_strategy='replace_changed',
        on_schema_change='fail',
        meta={'replace': {'keys': ['tenant_id', 'session_id'], 'changed': 'changed_or_moved_sessions'}}
    )
}}

with changed as (
    {{ changed_or_moved_sessions() }}
),

resolved as (
    select * from {{ ref('int_sessions__tree_resolved') }}
),

days as (
    select tenant_id, session_id, usage_date
    from {{ ref('fct_llm_turns') }}
    union all
    select tenant_id, session_id, usage_date
    from {{ ref('fct_tool_calls') }}
    {% if is_incremental() %}
    -- A pair is never forgotten: a day that a session left must be built again without it, now and when it comes back.
    union all
    select tenant_id, session_id, usage_date
    from {{ this }}
    {% endif %}
),

changed_days as (
    select
        days.tenant_id,
        days.session_id,
        days.usage_date,
        max(changed._ingest_seq) as _ingest_seq
    from days
    inner join changed
        on days.tenant_id = changed.tenant_id
        and days.session_id = changed.session_id
    group by days.tenant_id, days.session_id, days.usage_date
)

select
    changed_days.session_id,
    changed_days.tenant_id,
    resolved.user_id,
    resolved.root_session_id,
    resolved.colony_id,
    changed_days.usage_date,
    changed_days._ingest_seq
from changed_days
left join resolved
    on changed_days.tenant_id = resolved.tenant_id
    and changed_days.session_id = resolved.session_id
