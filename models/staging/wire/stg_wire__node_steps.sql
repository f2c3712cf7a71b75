with source as (
    select * from {{ source('wire', 'node_steps') }}
)

select
    record_id as step_id,
    tenant_id,
    session_id,
    trace_id,
    node_id,
    verdict,
    step_index,
    source_line,
    input_tokens,
    output_tokens,
    latency_ms,
    is_partial,
    tool_started_at,
    file_modified_at,
    region,
    _user_id,
    _device_id,
    _received_at
from source
