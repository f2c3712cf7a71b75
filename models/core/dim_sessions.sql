with sessions as (
    select * from {{ ref('int_sessions__observations_merged') }}
),

tree as (
    select * from {{ ref('int_sessions__tree_resolved') }}
),

totals as (
    select * from {{ ref('int_usage__session_totals') }}
)

select
    sessions.session_id,
    sessions.tenant_id,
    sessions.region,
    sessions.agent_runtime,
    tree.user_id,
    tree.user_basis,
    tree.parent_session_id,
    tree.root_session_id,
    sessions.forked_from_session_id,
    tree.colony_id,
    tree.colony_name,
    sessions.queen_name,
    assigned.agent_id,
    sessions.agent_name,
    sessions.session_kind,
    {{ agent_kind_of_session('sessions.session_kind') }} as agent_kind,
    sessions.agent_type,
    sessions.project_id,
    sessions.entrypoint,
    sessions.channel,
    sessions.status,
    cast(tree.depth as bigint) as depth,
    coalesce(totals.turns, 0) as turns,
    coalesce(totals.input_tokens, 0) as input_tokens,
    coalesce(totals.cache_read_input_tokens, 0) as cache_read_input_tokens,
    coalesce(totals.cache_write_input_tokens, 0) as cache_write_input_tokens,
    coalesce(totals.output_tokens, 0) as output_tokens,
    coalesce(totals.tool_calls, 0) as tool_calls,
    coalesce(totals.unreported_turns, 0) as unreported_turns,
    totals.reported_cost_usd,
    sessions.is_copy,
    sessions.started_at,
    sessions.updated_at,
    sessions.ended_at,
    totals.first_turn_at,
    totals.last_turn_at
from sessions
inner join tree using (tenant_id, session_id)
inner join {{ ref('int_agents__sessions_assigned') }} as assigned using (tenant_id, session_id)
left join totals using (tenant_id, session_id)
