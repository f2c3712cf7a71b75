with source as (
    select * from {{ source('wire', 'run_summaries') }}
)

select
    record_id,
    tenant_id,
    session_id,
    trace_id,
    goal_id,
    status,
    duration_ms,
    started_at
from source
