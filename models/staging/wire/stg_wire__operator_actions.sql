with source as (
    select * from {{ source('wire', 'operator_actions') }}
)

select
    action_id,
    tenant_id,
    agent_id,
    session_id,
    actor_id,
    action,
    reason,
    acted_at
from source
