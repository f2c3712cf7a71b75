with runs as (
    select
        runs.*,
        assigned.agent_id,
        assigned.agent_role,
        assigned.agent_name,
        assigned.task_class
    from {{ ref('fct_agent_runs') }} as runs
    inner join {{ ref('int_agents__sessions_assigned') }} as assigned using (tenant_id, session_id)
    -- A worker that never was cannot have failed.
    where not runs.is_dispatch_fault
),

-- All classes together, and each class by itself.
classes as (
    select *, task_class as class_of_row from runs
    union all
    select *, 'all' as class_of_row from runs
),

counted as (
    select
        tenant_id,
        agent_id,
        min(agent_role) as agent_role,
        min(agent_name) as agent_name,
        class_of_row as task_class,
        count(*) as runs,
        count(outcome) as finished_runs,
        count(*) filter (where outcome = 'success') as successes,
        count(*) filter (where outcome = 'partial') as partials,
        count(*) filter (where outcome = 'failed') as failures,
        count(*) filter (where outcome = 'timeout') as timeouts,
        count(*) filter (where outcome = 'stopped') as stops,
        count(*) filter (where outcome = 'other') as other_outcomes,
        count(*) filter (where outcome is null) as open_runs,
        cast(sum(turns) as bigint) as turns,
        cast(sum(retries) as bigint) as retries,
        cast(sum(stall_events) as bigint) as stall_events,
        cast(sum(resurrections) as bigint) as resurrections,
        cast(sum(unreported_turns) as bigint) as unreported_turns,
        sum(reported_cost_usd) as reported_cost_usd,
        -- A cost that was paid, not a quotient: half of the successes cost no more. Runs with unpriced turns know no cost.
        {{ quantile('reported_cost_usd', '0.5', where="outcome = 'success' and unreported_turns = 0") }}
            as success_p50_cost_usd,
        {{ quantile('active_seconds', '0.5') }} as p50_seconds,
        {{ quantile('active_seconds', '0.95') }} as p95_seconds,
        sum(active_seconds) as active_seconds,
        count(active_seconds) as timed_runs,
        {{ quantile('first_response_seconds', '0.5') }} as first_response_p50_seconds,
        max(started_at) as last_started_at
    from classes
    group by tenant_id, agent_id, class_of_row
),

measured as (
    select
        *,
        {{ share('successes', 'finished_runs') }} as success_share,
        {{ wilson('successes', 'finished_runs', '-1') }} as success_low,
        {{ wilson('successes', 'finished_runs', '+1') }} as success_high,
        finished_runs >= {{ var('scorecard_min_runs') }} as is_ranked
    from counted
)

select
    tenant_id,
    agent_id,
    agent_role,
    agent_name,
    task_class,
    runs,
    finished_runs,
    successes,
    partials,
    failures,
    timeouts,
    stops,
    other_outcomes,
    open_runs,
    turns,
    retries,
    stall_events,
    resurrections,
    unreported_turns,
    reported_cost_usd,
    success_p50_cost_usd,
    p50_seconds,
    p95_seconds,
    active_seconds,
    timed_runs,
    first_response_p50_seconds,
    success_share,
    success_low,
    success_high,
    -- By what is known of it, not by luck: the lower end. Equal ones by their name, so that the order is one.
    case
        when is_ranked
            then row_number() over (
                partition by tenant_id, task_class, is_ranked
                order by success_low desc, success_p50_cost_usd nulls last, agent_id
            )
    end as rank_in_class,
    is_ranked,
    last_started_at
from measured
