with reports as (
    select * from {{ ref('stg_wire__device_reports') }}
),

-- A device that sent rows has been heard of, with or without a report of its own.
spoken as (
    select
        tenant_id,
        device_id,
        max(last_received_at) as last_received_at
    from {{ ref('int_sessions__observations_merged') }}
    group by tenant_id, device_id
),

reported as (
    select
        tenant_id,
        device_id,
        count(*) as reports,
        {{ latest('uploader_version', pair('received_at', 'device_report_id')) }} as uploader_version,
        {{ latest('time_zone', pair('received_at', 'device_report_id')) }} as time_zone,
        {{ latest('started_at', pair('received_at', 'device_report_id')) }} as last_started_at,
        max(received_at) as last_received_at
    from reports
    group by tenant_id, device_id
),

devices as (
    select
        coalesce(reported.tenant_id, spoken.tenant_id) as tenant_id,
        coalesce(reported.device_id, spoken.device_id) as device_id,
        reported.uploader_version,
        reported.time_zone,
        coalesce(reported.reports, 0) as reports,
        reported.last_started_at,
        greatest(reported.last_received_at, spoken.last_received_at) as last_received_at
    from reported
    full outer join spoken
        on reported.tenant_id = spoken.tenant_id
        and reported.device_id = spoken.device_id
)

select
    device_id,
    tenant_id,
    uploader_version,
    time_zone,
    reports,
    -- A run that began after its batch arrived began by a clock that is ahead.
    coalesce({{ seconds_between('last_received_at', 'last_started_at') }} > {{ var('clock_tolerance_seconds') }}, false)
        as is_clock_ahead,
    last_started_at,
    last_received_at
from devices
