with source as (
    select * from {{ source('wire', 'node_details') }}
)

select
    record_id as detail_id,
    tenant_id,
    session_id,
    input_tokens,
    output_tokens
from source
