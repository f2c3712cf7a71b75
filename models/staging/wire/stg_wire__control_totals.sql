with source as (
    select * from {{ source('wire', 'control_totals') }}
)

select
    record_id as control_total_id,
    tenant_id,
    {{ agent_runtime('agent_runtime') }} as agent_runtime,
    session_id,
    turn_id,
    model,
    claimed_by,
    turns,
    input_tokens,
    cache_read_input_tokens,
    cache_write_input_tokens,
    output_tokens,
    reasoning_output_tokens,
    web_search_requests,
    lines_added,
    lines_removed,
    reported_cost_usd,
    is_cumulative,
    started_at,
    ended_at,
    observed_at,
    region,
    _user_id,
    _device_id,
    _received_at
from source
