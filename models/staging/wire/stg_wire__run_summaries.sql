with source as (
    select * from {{ source('wire', 'run_summaries') }}
)

select
    record_id,
    tenant_id,
    session_id,
    trace_id,
    total_input_tokens,
    total_output_tokens,
    started_at
from source
