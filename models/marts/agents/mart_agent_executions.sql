{{ config(materialized='view') }}

with runs as (
    select * from {{ ref('fct_agent_runs') }}
),

sessions as (
    select * from {{ ref('dim_sessions') }}
)

select
    runs.tenant_id,
    runs.session_id,
    runs.run_key,
    runs.parent_session_id,
    coalesce(sessions.agent_name, sessions.queen_name, sessions.session_kind, 'unknown') as agent_name,
    coalesce(sessions.session_kind, 'unknown') as agent_type,
    runs.outcome,
    runs.state,
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
    runs.state in ('completed', 'failed', 'killed') as is_finished,
    runs.started_date,
    {{ start_of_hour('runs.started_at') }} as started_hour_at,
    runs.started_at,
    runs.ended_at
from runs
left join sessions
    on runs.tenant_id = sessions.tenant_id
    and runs.session_id = sessions.session_id
