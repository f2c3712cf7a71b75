with source as (
    select * from {{ source('wire', 'batches') }}
)

select
    manifest_key,
    tenant_id,
    region,
    user_id,
    device_id,
    status,
    received_at
from source
