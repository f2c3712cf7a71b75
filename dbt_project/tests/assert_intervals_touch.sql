-- A line of intervals has no gap and no overlap, and only its last one has no end.
with intervals as (
    select
        *,
        lead(started_at) over (
            partition by tenant_id, session_id, interval_kind order by started_at
        ) as next_started_at
    from {{ ref('fct_status_intervals') }}
)

select tenant_id, session_id, interval_kind, started_at
from intervals
where ended_at is distinct from next_started_at
    or ended_at <= started_at
    or is_current <> (ended_at is null)
