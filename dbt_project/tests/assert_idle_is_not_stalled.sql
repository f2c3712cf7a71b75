-- Nothing is called stalled that has no event of trouble: waiting and silence are no bugs.
{{ config(meta={'dagster': {'ref': {'name': 'fct_status_intervals'}}}) }}
select intervals.tenant_id, intervals.session_id, intervals.started_at
from {{ ref('fct_status_intervals') }} as intervals
where intervals.status = 'stalled'
    and not exists (
        select 1
        from {{ ref('fct_status_events') }} as events
        where events.tenant_id = intervals.tenant_id
            and events.session_id = intervals.session_id
            and events.kind in ('stalled', 'inactive', 'doom_loop')
            and events.occurred_at = intervals.started_at
    )
