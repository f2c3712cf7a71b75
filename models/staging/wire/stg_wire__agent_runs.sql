with source as (
    select * from {{ source('wire', 'agent_runs') }}
)

select
    record_id,
    tenant_id,
    session_id,
    parent_session_id,
    region,
    _user_id
from source
