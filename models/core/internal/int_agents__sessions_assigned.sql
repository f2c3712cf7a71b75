with sessions as (
    select
        observed.*,
        tree.parent_session_id as resolved_parent_id,
        tree.colony_id
    from {{ ref('int_sessions__observations_merged') }} as observed
    inner join {{ ref('int_sessions__tree_resolved') }} as tree using (tenant_id, session_id)
),

most_used as (
    select
        tenant_id,
        session_id,
        {{ latest('tool_name', pair('calls', 'tool_name')) }} as tool_name
    from {{ ref('int_usage__session_tools') }}
    group by tenant_id, session_id
),

-- A worker is known by its profile; without one it is a worker of its queen.
named as (
    select
        sessions.tenant_id,
        sessions.session_id,
        sessions.colony_id,
        case
            when sessions.session_kind in ('queen', 'colony_queen') then 'queen'
            when sessions.session_kind = 'worker' then 'worker'
            when sessions.session_kind in ('agent_session', 'secondary_graph', 'legacy_run', 'graph_run') then 'agent'
            else 'other'
        end as agent_role,
        case
            when sessions.session_kind in ('queen', 'colony_queen') then sessions.queen_name
            when sessions.session_kind = 'worker'
                then coalesce(sessions.profile_name, parents.queen_name, sessions.queen_name)
            else sessions.agent_name
        end as agent_name,
        models.model,
        {{ task_class('most_used.tool_name') }} as task_class,
        coalesce(sessions.started_at, totals.first_turn_at) as started_at,
        coalesce(totals.last_turn_at, sessions.ended_at, sessions.updated_at, sessions.started_at) as last_seen_at
    from sessions
    left join {{ ref('int_agents__session_models') }} as models using (tenant_id, session_id)
    left join {{ ref('int_usage__session_totals') }} as totals using (tenant_id, session_id)
    left join most_used using (tenant_id, session_id)
    left join sessions as parents
        on sessions.tenant_id = parents.tenant_id
        and sessions.resolved_parent_id = parents.session_id
)

select
    tenant_id,
    session_id,
    agent_role || ':' || coalesce(agent_name, 'unknown') as agent_id,
    agent_role,
    agent_name,
    colony_id,
    model,
    task_class,
    started_at,
    last_seen_at
from named
