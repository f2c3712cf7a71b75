with source as (
    select * from {{ source('wire', 'run_summaries') }}
)

select
    record_id,
    tenant_id,
    {{ agent_runtime('agent_runtime') }} as agent_runtime,
    session_id,
    trace_id,
    goal_id,
    status,
    total_input_tokens,
    total_output_tokens,
    duration_ms,
    started_at
from source
