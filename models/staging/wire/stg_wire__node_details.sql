with source as (
    select * from {{ source('wire', 'node_details') }}
)

select
    record_id as node_exit_id,
    tenant_id,
    {{ agent_runtime('agent_runtime') }} as agent_runtime,
    session_id,
    trace_id,
    node_id,
    node_type,
    exit_status,
    error_class,
    source_line,
    total_steps,
    tokens_used,
    input_tokens,
    output_tokens,
    latency_ms,
    attempt,
    accept_count,
    retry_count,
    escalate_count,
    continue_count,
    attention_count,
    is_success,
    needs_attention,
    file_modified_at,
    region,
    _user_id,
    _device_id,
    _received_at
from source
