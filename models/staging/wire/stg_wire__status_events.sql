{{ resolved_times('status_events') }}

select
    record_id as status_event_id,
    tenant_id,
    session_id,
    parent_session_id,
    node_id,
    kind,
    {{ agent_kind('agent_role') }} as agent_kind,
    phase,
    verdict,
    error_class,
    task_id,
    task_status,
    time_basis,
    iteration,
    retry_count,
    context_tokens,
    context_limit_tokens,
    seconds,
    is_time_ambiguous,
    occurred_at,
    region,
    _user_id,
    _device_id,
    _received_at
from resolved
