{{ resolved_times('agent_runs') }}

select
    record_id,
    tenant_id,
    {{ agent_runtime('agent_runtime') }} as agent_runtime,
    session_id,
    parent_session_id,
    run_id,
    correlation_id,
    kind,
    outcome,
    origin,
    error_class,
    time_basis,
    tokens_used,
    tool_calls_used,
    duration_seconds,
    is_time_ambiguous,
    occurred_at,
    region,
    _user_id,
    _device_id,
    _received_at
from resolved
