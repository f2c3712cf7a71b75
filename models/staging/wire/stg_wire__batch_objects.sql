with source as (
    select * from {{ source('wire', 'batch_objects') }}
)

select
    manifest_key,
    tenant_id,
    table_name,
    rows_claimed,
    input_tokens_claimed,
    output_tokens_claimed,
    _ingest_seq
from source
