{{
    config(
        materialized='incremental',
        meta={'max_rows_per_input_row': 40, 'replace': {'keys': ['tenant_id', 'session_id'], 'changed': 'changed_sessions'}}
    )
}}

with changed as (
    {{ changed_sessions() }}
),

events as (
    select
        tenant_id,
        session_id,
        event_date as activity_date,
        {{ fingerprint(["'event'", 'status_event_id', 'kind', 'agent_kind', 'node_id', 'model', 'verdict']) }} as _fingerprint
    from {{ ref('fct_status_events') }}
),

exits as (
    select
        tenant_id,
        session_id,
        exit_date as activity_date,
        {{ fingerprint(["'exit'", 'node_exit_id', 'exit_status', 'latency_ms']) }} as _fingerprint
    from {{ ref('fct_node_exits') }}
),

-- A run is at work on every day from its start to its end; without an end on the day of its start alone.
runs as (
    select
        tenant_id,
        session_id,
        cast(started_date + cast(day_number as integer) as date) as activity_date,
        {{ fingerprint(["'run'", 'run_key', 'parent_session_id', 'outcome', 'started_at', 'ended_at']) }} as _fingerprint
    from (
        select
            *,
            {{ numbers_between(0, days_between('started_date', utc_date(believed_end('started_at', 'ended_at')))) }} as day_number
        from {{ ref('fct_agent_runs') }}
        where started_at is not null
    ) as days
),

rows_of_days as (
    select * from events
    union all
    select * from exits
    union all
    select * from runs
),

{{ session_days('activity_date') }}
