{{ config(materialized='view') }}

with runs as (
    select * from {{ ref('fct_agent_runs') }}
),

sessions as (
    select * from {{ ref('dim_sessions') }}
),

-- A log of a run without an end says that it runs for ever: whether it still does, the status of its session says.
judged as (
    select
        runs.*,
        case
            when runs.state not in ('spawning', 'running') or snapshot.status = 'working' then runs.state
            when snapshot.status in ('waiting', 'stalled', 'ended') then snapshot.status
            else 'silent'
        end as state_now,
        snapshot.last_event_at as last_heard_at
    from runs
    left join {{ ref('mart_status_snapshot') }} as snapshot using (tenant_id, session_id)
)

select
    runs.tenant_id,
    runs.session_id,
    runs.run_key,
    runs.parent_session_id,
    coalesce(sessions.agent_name, sessions.queen_name, sessions.session_kind, 'unknown') as agent_name,
    coalesce(sessions.session_kind, 'unknown') as agent_type,
    {{ agent_kind_of_session('sessions.session_kind') }} as agent_kind,
    runs.outcome,
    runs.state_now as state,
    runs.error_class,
    runs.turns,
    coalesce(runs.input_tokens, 0) as input_tokens,
    coalesce(runs.output_tokens, 0) as output_tokens,
    runs.unreported_turns,
    runs.reported_cost_usd,
    runs.wall_seconds,
    runs.active_seconds,
    runs.first_response_seconds,
    coalesce(runs.outcome = 'success', false) as is_success,
    runs.state_now in ('completed', 'failed', 'killed') as is_finished,
    runs.state_now in ('spawning', 'running', 'waiting', 'stalled') as is_active,
    runs.started_date,
    {{ start_of_hour('runs.started_at') }} as started_hour_at,
    runs.started_at,
    runs.ended_at,
    runs.last_heard_at
from judged as runs
left join sessions using (tenant_id, session_id)
