with health as (
    select *
    from {{ ref('mart_worker_health') }}
    where colony_id is not null
)

select
    colony_id,
    tenant_id,
    count(*) as sessions,
    count(*) filter (where session_kind = 'worker') as workers,
    count(*) filter (where session_status = 'working') as working_sessions,
    count(*) filter (where session_status = 'waiting') as waiting_sessions,
    count(*) filter (where session_status = 'stalled') as stalled_sessions,
    count(*) filter (where session_status = 'silent_agent') as silent_sessions,
    count(*) filter (where session_status = 'ended') as ended_sessions,
    count(*) filter (where outcome in ('failed', 'timeout')) as failed_sessions,
    count(*) filter (where is_possibly_hung) as possibly_hung_sessions,
    cast(sum(total_steps) as bigint) as total_steps,
    cast(sum(accepts) as bigint) as accepts,
    cast(sum(retry_verdicts) as bigint) as retry_verdicts,
    cast(sum(escalations) as bigint) as escalations,
    cast(sum(continues) as bigint) as continues,
    cast(sum(stall_events) as bigint) as stall_events,
    max(stall_score) as worst_stall_score,
    sum(stalled_seconds) as stalled_seconds,
    max(last_event_at) as last_event_at,
    min(known_as_of) as known_as_of
from health
group by tenant_id, colony_id
