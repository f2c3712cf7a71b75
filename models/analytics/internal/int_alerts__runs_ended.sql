with steps as (
    select * from {{ ref('stg_wire__agent_runs') }}
),

-- A worker's report belongs to no run of its own; what a session does without a run is one.
runs as (
    select
        tenant_id,
        session_id,
        coalesce(run_id, '') as run_id,
        min(occurred_at) filter (where kind = 'started') as started_at,
        max(occurred_at) filter (where kind in ('completed', 'failed', 'cancelled', 'report')) as ended_at,
        max(duration_seconds) as reported_seconds,
        bool_or(kind = 'failed' or outcome in ('failed', 'timeout')) as is_failed,
        bool_or(kind = 'cancelled' or outcome = 'stopped') as is_stopped,
        max(_received_at) filter (where kind in ('completed', 'failed', 'cancelled', 'report')) as received_at
    from steps
    where occurred_at is not null
    group by tenant_id, session_id, coalesce(run_id, '')
)

select
    tenant_id,
    session_id,
    run_id,
    is_failed,
    is_stopped,
    coalesce(
        cast(reported_seconds as decimal(18, 6)),
        cast(({{ to_micros('ended_at') }} - {{ to_micros('started_at') }}) * 0.000001 as decimal(18, 6))
    ) as duration_seconds,
    coalesce(started_at, {{ from_micros(to_micros('ended_at') ~ ' - ' ~ nearest_integer('reported_seconds * 1000000')) }}) as started_at,
    ended_at,
    received_at
from runs
where ended_at is not null
