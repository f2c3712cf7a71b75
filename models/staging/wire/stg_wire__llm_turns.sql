with source as (
    select * from {{ source('wire', 'llm_turns') }}
)

select
    record_id as turn_id,
    tenant_id,
    session_id,
    parent_session_id,
    model,
    {{ agent_kind('agent_role') }} as agent_kind,
    stop_reason,
    time_basis,
    input_tokens,
    cache_read_input_tokens,
    cache_write_input_tokens,
    output_tokens,
    reported_cost_usd,
    is_time_ambiguous,
    occurred_at,
    region,
    _user_id,
    _device_id,
    _received_at
from source
