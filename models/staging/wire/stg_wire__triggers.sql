{{ resolved_times('triggers') }}

select
    record_id as trigger_event_id,
    tenant_id,
    {{ agent_runtime('agent_runtime') }} as agent_runtime,
    session_id,
    trigger_id,
    kind,
    trigger_type,
    time_basis,
    interval_seconds,
    is_time_ambiguous,
    occurred_at,
    region,
    _user_id,
    _device_id,
    _received_at
from resolved
