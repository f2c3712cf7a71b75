with source as (
    select * from {{ source('wire', 'device_reports') }}
)

select
    record_id as device_report_id,
    tenant_id,
    user_id,
    uploader_version,
    timezone as time_zone,
    platform,
    run,
    started_at,
    region,
    _device_id as device_id,
    _received_at as received_at
from source
