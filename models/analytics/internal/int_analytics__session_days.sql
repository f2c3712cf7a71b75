{{
    config(
        materialized='incremental',
        meta={'replace': {'keys': ['tenant_id', 'session_id'], 'changed': 'changed_moved_or_rezoned_sessions'}}
    )
}}

with changed as (
    {{ changed_moved_or_rezoned_sessions() }}
),

resolved as (
    select * from {{ ref('int_sessions__tree_resolved') }}
),

zones as (
    select * from {{ ref('int_tenants__time_zones') }}
),

turns as (
    select
        tenant_id,
        session_id,
        usage_date,
        _fingerprint
    from {{ ref('int_usage__session_days') }}
    where _fingerprint is not null
),

tool_calls as (
    select
        tenant_id,
        session_id,
        usage_date,
        {{ fingerprint([
            "'call'", 'tool_call_id', 'agent_kind', 'model', 'tool_name', 'is_error', 'duration_seconds', 'occurred_at'
        ]) }} as _fingerprint
    from {{ ref('fct_tool_calls') }}
),

judged_turns as (
    select
        tenant_id,
        session_id,
        usage_date,
        {{ fingerprint(["'judged'", 'turn_id', 'tool_name', 'waste_kind']) }} as _fingerprint
    from {{ ref('int_usage__turns_judged') }}
),

rows_of_days as (
    select * from turns
    union all
    select * from tool_calls
    union all
    select * from judged_turns
),

built as (
    select
        rows_of_days.tenant_id,
        rows_of_days.session_id,
        rows_of_days.usage_date,
        {{ fingerprint_of_all('rows_of_days._fingerprint') }} as _fingerprint
    from rows_of_days
    inner join changed using (tenant_id, session_id)
    group by rows_of_days.tenant_id, rows_of_days.session_id, rows_of_days.usage_date
),

{{ session_day_pairs('usage_date') }},

current_pairs as (
    select
        pairs.tenant_id,
        pairs.session_id,
        resolved.user_id,
        resolved.root_session_id,
        resolved.colony_id,
        coalesce(zones.time_zone, 'UTC') as time_zone,
        pairs.usage_date,
        built._fingerprint,
        changed._ingest_seq
    from pairs
    inner join changed using (tenant_id, session_id)
    left join built using (tenant_id, session_id, usage_date)
    left join resolved using (tenant_id, session_id)
    left join zones using (tenant_id)
)

select
    current_pairs.session_id,
    current_pairs.tenant_id,
    current_pairs.user_id,
    current_pairs.root_session_id,
    current_pairs.colony_id,
    current_pairs.time_zone,
    current_pairs.usage_date,
    current_pairs._fingerprint,
    {% if is_incremental() -%}
    -- A session that lives for months must not reopen all its days with every turn.
    case
        when stored._fingerprint is not distinct from current_pairs._fingerprint
            and stored.user_id is not distinct from current_pairs.user_id
            and stored.root_session_id is not distinct from current_pairs.root_session_id
            and stored.colony_id is not distinct from current_pairs.colony_id
            and stored.time_zone is not distinct from current_pairs.time_zone
            then coalesce(stored._ingest_seq, current_pairs._ingest_seq)
        else current_pairs._ingest_seq
    end as _ingest_seq
    {%- else -%}
    current_pairs._ingest_seq
    {%- endif %}
from current_pairs
{% if is_incremental() -%}
left join stored using (tenant_id, session_id, usage_date)
{%- endif %}
