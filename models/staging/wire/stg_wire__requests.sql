with source as (
    select * from {{ source('wire', 'requests') }}
)

select
    record_id,
    tenant_id,
    {{ agent_runtime('agent_runtime') }} as agent_runtime,
    agent_name,
    asked_name,
    kind,
    purpose,
    status,
    error_class,
    number,
    reply_to_number,
    attempts,
    observation,
    is_to_operator,
    is_broadcast,
    requested_at,
    due_at,
    resolved_at,
    observed_at,
    _received_at
from source
