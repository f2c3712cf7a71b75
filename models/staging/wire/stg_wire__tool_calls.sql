{{ resolved_times('tool_calls') }}

select
    record_id as tool_call_id,
    tenant_id,
    {{ agent_runtime('agent_runtime') }} as agent_runtime,
    session_id,
    parent_session_id,
    step_record_id as step_id,
    tool_name,
    origin,
    {{ agent_kind('agent_role') }} as agent_kind,
    duration_seconds,
    is_error,
    occurred_at,
    region,
    _user_id,
    _device_id,
    _received_at
from resolved
where is_covered is not true
