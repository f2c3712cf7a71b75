{{ config(materialized='table') }}

with reports as (
    select
        record_id,
        tenant_id,
        _device_id as device_id,
        timezone as time_zone,
        started_at,
        _received_at as received_at
    from {{ source('wire', 'device_reports') }}
    where timezone in ({{ time_zone_names() }})
),

followed as (
    select
        *,
        lead(time_zone) over (
            partition by tenant_id, device_id order by received_at, started_at, record_id
        ) as next_time_zone
    from reports
),

-- The last report in a zone ends its time: a row is of the zone of the first report that arrived with it or after it.
ends as (
    select *
    from followed
    where next_time_zone is null
        or next_time_zone <> time_zone
)

select
    tenant_id,
    device_id,
    time_zone,
    last_value(time_zone) over (
        partition by tenant_id, device_id order by received_at, started_at, record_id
        rows between unbounded preceding and unbounded following
    ) as current_time_zone,
    lag(received_at) over (partition by tenant_id, device_id order by received_at, started_at, record_id) as valid_after,
    case when next_time_zone is not null then received_at end as valid_to
from ends
