with hours as (
    select * from {{ ref('agg_concurrency_hourly') }}
),

limited as (
    select
        hours.*,
        cast(
            case
                when hours.scope = 'tenant' then {{ var('max_active_agents') }}
                else coalesce(colonies.max_concurrent_workers, {{ var('max_concurrent_workers') }})
            end as bigint
        ) as limit_runs
    from hours
    left join {{ ref('int_colonies__observations_merged') }} as colonies
        on hours.tenant_id = colonies.tenant_id
        and hours.scope_session_id = colonies.colony_id
)

select
    tenant_id,
    scope_session_id,
    scope,
    count(*) as hours,
    cast(sum(started_runs) as bigint) as runs,
    max(peak_runs) as peak_runs,
    max(limit_runs) as limit_runs,
    count(*) filter (where peak_runs > limit_runs) as hours_over_limit,
    sum(run_seconds) as run_seconds,
    max(peak_runs) > max(limit_runs) as is_over_limit,
    -- The earliest of the hours with the highest peak.
    {{ latest('hour_at', pair('peak_runs', "-" ~ to_micros('hour_at'))) }} as peak_hour_at
from limited
group by tenant_id, scope_session_id, scope
