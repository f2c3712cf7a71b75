{{
    config(
        materialized='incremental',
        meta={'replace': {'keys': ['tenant_id', 'session_id'], 'changed': 'changed_moved_or_rezoned_sessions'}}
    )
}}

with changed as (
    {{ changed_moved_or_rezoned_sessions() }}
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

{{ session_days(follows=['user_id', 'root_session_id', 'colony_id', 'time_zone']) }}
