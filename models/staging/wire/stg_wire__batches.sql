with source as (
    select * from {{ source('wire', 'batches') }}
)

select
    manifest_key,
    tenant_id,
    region,
    user_id,
    device_id,
    epoch,
    manifest_sha256,
    previous_manifest_sha256,
    uploader_version,
    status,
    reason,
    seq,
    rows_claimed,
    rows_in,
    rows_new,
    rows_duplicate,
    rows_conflict,
    {{ utc_date('received_at') }} as received_date,
    received_at,
    ingest_seq as _ingest_seq
from source
