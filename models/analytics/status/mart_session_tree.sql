with sessions as (
    select
        tree.*,
        observed.forked_from_session_id,
        observed.session_kind
    from {{ ref('int_sessions__tree_resolved') }} as tree
    inner join {{ ref('int_sessions__observations_merged') }} as observed using (tenant_id, session_id)
),

ancestors as (
    select * from {{ ref('int_sessions__ancestors_walked') }}
),

runs as (
    select
        tenant_id,
        session_id,
        count(*) as runs,
        count(*) filter (where outcome = 'success') as successes,
        count(*) filter (where outcome = 'partial') as partials,
        count(*) filter (where outcome = 'failed') as failures,
        count(*) filter (where outcome = 'timeout') as timeouts,
        count(*) filter (where outcome = 'stopped') as stops,
        count(*) filter (where outcome is null) as open_runs
    from {{ ref('fct_agent_runs') }}
    group by tenant_id, session_id
),

active as (
    select
        tenant_id,
        session_id,
        sum(seconds) as active_seconds
    from {{ ref('fct_status_intervals') }}
    where interval_kind = 'status'
        and status = 'working'
    group by tenant_id, session_id
),

own as (
    select
        sessions.tenant_id,
        sessions.session_id,
        case when sessions.session_kind = 'worker' then 1 else 0 end as workers,
        coalesce(totals.turns, 0) as turns,
        coalesce(totals.tool_calls, 0) as tool_calls,
        coalesce(runs.runs, 0) as runs,
        coalesce(runs.successes, 0) as successes,
        coalesce(runs.partials, 0) as partials,
        coalesce(runs.failures, 0) as failures,
        coalesce(runs.timeouts, 0) as timeouts,
        coalesce(runs.stops, 0) as stops,
        coalesce(runs.open_runs, 0) as open_runs,
        active.active_seconds
    from sessions
    left join {{ ref('int_usage__session_totals') }} as totals using (tenant_id, session_id)
    left join runs using (tenant_id, session_id)
    left join active using (tenant_id, session_id)
),

subtrees as (
    select
        ancestors.tenant_id,
        ancestors.ancestor_id as session_id,
        count(*) as sessions,
        cast(sum(own.workers) as bigint) as workers,
        cast(sum(own.turns) as bigint) as turns,
        cast(sum(own.tool_calls) as bigint) as tool_calls,
        cast(sum(own.runs) as bigint) as runs,
        cast(sum(own.successes) as bigint) as successes,
        cast(sum(own.partials) as bigint) as partials,
        cast(sum(own.failures) as bigint) as failures,
        cast(sum(own.timeouts) as bigint) as timeouts,
        cast(sum(own.stops) as bigint) as stops,
        cast(sum(own.open_runs) as bigint) as open_runs,
        sum(own.active_seconds) as active_seconds,
        max(ancestors.depth) as height
    from ancestors
    inner join own using (tenant_id, session_id)
    group by ancestors.tenant_id, ancestors.ancestor_id
),

children as (
    select
        tenant_id,
        parent_session_id as session_id,
        count(*) as children
    from sessions
    where parent_session_id is not null
    group by tenant_id, parent_session_id
),

longest as (
    select
        tenant_id,
        session_id,
        {{ latest('path', 'depth') }} as path
    from ancestors
    group by tenant_id, session_id
)

select
    sessions.session_id,
    sessions.tenant_id,
    sessions.parent_session_id,
    sessions.root_session_id,
    sessions.colony_id,
    {{ path_text('longest.path') }} as path,
    sessions.session_kind,
    case
        when sessions.parent_session_id is null then 'root'
        when sessions.parent_session_id = sessions.forked_from_session_id then 'fork'
        when sessions.session_kind = 'worker' then 'worker'
        else 'stated'
    end as edge_kind,
    cast(sessions.depth as bigint) as depth,
    cast(subtrees.height as bigint) as height,
    coalesce(children.children, 0) as children,
    own.turns as own_turns,
    own.tool_calls as own_tool_calls,
    cast(own.runs as bigint) as own_runs,
    own.active_seconds as own_active_seconds,
    subtrees.sessions as subtree_sessions,
    subtrees.workers as subtree_workers,
    subtrees.turns as subtree_turns,
    subtrees.tool_calls as subtree_tool_calls,
    subtrees.runs as subtree_runs,
    subtrees.successes as subtree_successes,
    subtrees.partials as subtree_partials,
    subtrees.failures as subtree_failures,
    subtrees.timeouts as subtree_timeouts,
    subtrees.stops as subtree_stops,
    subtrees.open_runs as subtree_open_runs,
    subtrees.active_seconds as subtree_active_seconds,
    -- An ancestor that no device has shown cannot be walked further: what is above it is not known.
    parents.session_id is null and sessions.parent_session_id is not null as is_orphan
from sessions
inner join own using (tenant_id, session_id)
inner join subtrees using (tenant_id, session_id)
inner join longest using (tenant_id, session_id)
left join children using (tenant_id, session_id)
left join sessions as parents
    on sessions.tenant_id = parents.tenant_id
    and sessions.parent_session_id = parents.session_id
