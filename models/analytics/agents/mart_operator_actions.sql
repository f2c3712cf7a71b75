with actions as (
    select * from {{ ref('stg_wire__operator_actions') }}
),

sides as (
    select
        actions.*,
        side.side,
        case
            when side.side = 'before' then {{ seconds_after('actions.acted_at', '-86400 * ' ~ var('evidence_days')) }}
            else actions.acted_at
        end as from_at,
        case
            when side.side = 'before' then actions.acted_at
            else {{ seconds_after('actions.acted_at', '86400 * ' ~ var('evidence_days')) }}
        end as to_at
    from actions
    cross join (select 'before' as side union all select 'after' as side) as side
),

-- What the agent did in the days before, and in those after.
watched as (
    select
        sides.action_id,
        sides.side,
        sides.from_at,
        sides.to_at,
        agent_sessions.tenant_id,
        agent_sessions.session_id
    from sides
    inner join {{ ref('int_agents__sessions_assigned') }} as agent_sessions
        on sides.tenant_id = agent_sessions.tenant_id
        and sides.agent_id = agent_sessions.agent_id
),

runs as (
    select
        watched.action_id,
        watched.side,
        count(*) as runs,
        count(*) filter (where r.outcome = 'success') as successes,
        count(*) filter (where r.outcome in ('failed', 'timeout')) as failures,
        cast(sum(r.retries) as bigint) as retries
    from watched
    inner join {{ ref('fct_agent_runs') }} as r
        on watched.tenant_id = r.tenant_id
        and watched.session_id = r.session_id
        and r.started_at >= watched.from_at
        and r.started_at < watched.to_at
    where not r.is_dispatch_fault
    group by watched.action_id, watched.side
),

events as (
    select
        watched.action_id,
        watched.side,
        count(*) filter (where e.kind in ('stalled', 'inactive')) as stalls,
        count(*) filter (where e.kind = 'doom_loop') as doom_loops,
        count(*) filter (where e.kind = 'compacted') as compactions,
        count(*) filter (where e.error_class = 'context_length') as context_errors
    from watched
    inner join {{ ref('fct_status_events') }} as e
        on watched.tenant_id = e.tenant_id
        and watched.session_id = e.session_id
        and e.occurred_at >= watched.from_at
        and e.occurred_at < watched.to_at
    group by watched.action_id, watched.side
),

calls as (
    select
        watched.action_id,
        watched.side,
        count(*) as tool_calls,
        count(*) filter (where c.is_error) as tool_errors
    from watched
    inner join {{ ref('fct_tool_calls') }} as c
        on watched.tenant_id = c.tenant_id
        and watched.session_id = c.session_id
        and c.occurred_at >= watched.from_at
        and c.occurred_at < watched.to_at
    group by watched.action_id, watched.side
),

silences as (
    select
        watched.action_id,
        watched.side,
        sum(i.seconds) as silent_seconds
    from watched
    inner join {{ ref('fct_status_intervals') }} as i
        on watched.tenant_id = i.tenant_id
        and watched.session_id = i.session_id
        and i.started_at >= watched.from_at
        and i.started_at < watched.to_at
    where i.status = 'silent'
    group by watched.action_id, watched.side
),

evidence as (
    select
        sides.action_id,
        sides.side,
        coalesce(runs.runs, 0) as runs,
        coalesce(runs.successes, 0) as successes,
        coalesce(runs.failures, 0) as failures,
        coalesce(runs.retries, 0) as retries,
        coalesce(events.stalls, 0) as stalls,
        coalesce(events.doom_loops, 0) as doom_loops,
        coalesce(events.compactions, 0) as compactions,
        coalesce(events.context_errors, 0) as context_errors,
        coalesce(calls.tool_calls, 0) as tool_calls,
        coalesce(calls.tool_errors, 0) as tool_errors,
        coalesce(silences.silent_seconds, 0) as silent_seconds
    from sides
    left join runs using (action_id, side)
    left join events using (action_id, side)
    left join calls using (action_id, side)
    left join silences using (action_id, side)
)

-- What the numbers say beside the reason that a person gave: evidence, never a verdict.
select
    actions.action_id,
    actions.tenant_id,
    actions.agent_id,
    actions.session_id,
    actions.actor_id,
    actions.action,
    actions.reason,
    {%- for side in ['before', 'after'] %}
    {%- for measure in [
        'runs', 'successes', 'failures', 'retries', 'stalls', 'doom_loops', 'compactions', 'context_errors', 'tool_calls',
        'tool_errors', 'silent_seconds'
    ] %}
    {{ side }}.{{ measure }} as {{ measure }}_{{ side }},
    {%- endfor %}
    {%- endfor %}
    agents.agent_id is not null as is_known_agent,
    actions.acted_at
from actions
inner join evidence as before
    on actions.action_id = before.action_id
    and before.side = 'before'
inner join evidence as after
    on actions.action_id = after.action_id
    and after.side = 'after'
left join (select distinct tenant_id, agent_id from {{ ref('dim_agents') }}) as agents
    on actions.tenant_id = agents.tenant_id
    and actions.agent_id = agents.agent_id
