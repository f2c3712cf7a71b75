with source as (
    select * from {{ source('wire', 'sessions') }}
)

select
    record_id,
    tenant_id,
    session_id,
    parent_session_id,
    forked_from_session_id,
    user_id,
    queen_name,
    agent_name,
    colony_name,
    profile_name,
    evidence,
    session_kind,
    status,
    phase,
    steps_executed,
    batch_size,
    batch_index,
    coalesce(is_copy, false) as is_copy,
    started_at,
    updated_at,
    ended_at,
    offset_basis,
    observed_at,
    region,
    _user_id,
    _device_id,
    _received_at
from source
