with workers as (
    select
        runs.*,
        sessions.batch_size
    from {{ ref('fct_agent_runs') }} as runs
    inner join {{ ref('int_sessions__observations_merged') }} as sessions using (tenant_id, session_id)
    where runs.run_kind = 'worker'
        and runs.parent_session_id is not null
        and runs.started_at is not null
),

-- Workers of one session that start soon after one another were spawned together.
spaced as (
    select
        *,
        coalesce(
            {{ seconds_between('lag(started_at) over siblings', 'started_at') }} > {{ var('fan_out_gap_seconds') }}, true
        ) as is_first
    from workers
    window siblings as (partition by tenant_id, parent_session_id order by started_at, session_id)
),

numbered as (
    select
        *,
        sum(case when is_first then 1 else 0 end) over (
            partition by tenant_id, parent_session_id
            order by started_at, session_id
            rows between unbounded preceding and current row
        ) as fan_out_number
    from spaced
)

select
    tenant_id,
    parent_session_id,
    cast(fan_out_number as bigint) as fan_out_number,
    count(*) as workers,
    max(batch_size) as declared_workers,
    count(ended_at) as ended_workers,
    count(*) filter (where outcome = 'success') as successes,
    count(*) filter (where outcome is not null and outcome <> 'success') as other_outcomes,
    sum(wall_seconds) as worker_seconds,
    greatest({{ seconds_between('min(started_at)', 'max(ended_at)') }}, 0) as wall_seconds,
    -- How long the first to finish waited for the last.
    {{ seconds_between('min(ended_at)', 'max(ended_at)') }} as fan_in_seconds,
    count(*) = count(ended_at) as is_complete,
    {{ utc_date('min(started_at)') }} as started_date,
    min(started_at) as started_at,
    max(ended_at) as ended_at
from numbered
group by tenant_id, parent_session_id, fan_out_number
