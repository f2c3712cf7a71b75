with cards as (
    select *
    from {{ ref('mart_agent_scorecard') }}
    where task_class <> 'all'
),

candidates as (
    select
        tenant_id,
        task_class,
        count(*) as agents,
        count(*) filter (where is_ranked) as ranked_agents,
        cast(sum(finished_runs) as bigint) as finished_runs
    from cards
    group by tenant_id, task_class
),

best as (
    select * from cards where rank_in_class = 1
),

next_best as (
    select * from cards where rank_in_class = 2
)

select
    candidates.tenant_id,
    candidates.task_class,
    best.agent_id,
    next_best.agent_id as next_agent_id,
    candidates.agents,
    candidates.ranked_agents,
    candidates.finished_runs,
    best.finished_runs as agent_finished_runs,
    best.success_share,
    best.success_low,
    best.success_high,
    best.p50_seconds,
    best.success_p50_cost_usd,
    -- The intervals of the two do not meet: the difference is more than luck.
    coalesce(best.success_low > next_best.success_high, false) as is_clear,
    candidates.ranked_agents >= 2 as is_choice
from candidates
left join best using (tenant_id, task_class)
left join next_best using (tenant_id, task_class)
