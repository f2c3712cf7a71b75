{{
    config(
        materialized='incremental',
        meta={'replace': {'keys': ['tenant_id', 'session_id'], 'changed': 'changed_sessions'}}
    )
}}

with changed as (
    {{ changed_sessions() }}
),

steps as (
    select
        s.tenant_id,
        s.session_id,
        count(*) filter (where s.verdict = 'ACCEPT') as accepts,
        count(*) filter (where s.verdict = 'RETRY') as retries,
        count(*) filter (where s.verdict = 'ESCALATE') as escalations,
        count(*) filter (where s.verdict = 'CONTINUE') as continues,
        count(*) filter (where s.step_index < 0) as compactions,
        count(*) filter (where s.is_partial) as partial_steps
    from {{ ref('stg_wire__node_steps') }} as s
    inner join changed using (tenant_id, session_id)
    group by s.tenant_id, s.session_id
),

events as (
    select
        e.tenant_id,
        e.session_id,
        count(*) filter (where e.kind = 'judged') as verdicts,
        count(*) filter (where e.verdict = 'ACCEPT') as accepts,
        count(*) filter (where e.verdict = 'RETRY') as retries,
        count(*) filter (where e.verdict = 'ESCALATE') as escalations,
        count(*) filter (where e.verdict = 'CONTINUE') as continues,
        count(*) filter (where e.kind = 'retried') as provider_retries,
        count(*) filter (where e.kind in ('stalled', 'inactive', 'doom_loop')) as stall_events,
        count(*) filter (where e.kind = 'doom_loop') as doom_loops,
        count(*) filter (where e.kind = 'tool_replayed') as replayed_calls,
        count(*) filter (where e.kind = 'slow_first_token') as slow_first_tokens,
        count(*) filter (where e.kind = 'compacted') as compactions,
        count(*) filter (where e.kind = 'escalated') as requests_for_help,
        {{ latest('e.kind', pair('e.occurred_at', 'e.status_event_id')) }}
            filter (where e.kind in ('stalled', 'inactive', 'doom_loop', 'retried', 'escalated', 'slow_first_token'))
            as evidence_kind
    from {{ ref('fct_status_events') }} as e
    inner join changed using (tenant_id, session_id)
    group by e.tenant_id, e.session_id
)

-- Where both logs judged, the events speak: a graph run's steps repeat them.
select
    changed.session_id,
    changed.tenant_id,
    events.evidence_kind,
    coalesce(case when events.verdicts > 0 then events.accepts end, steps.accepts, 0) as accepts,
    coalesce(case when events.verdicts > 0 then events.retries end, steps.retries, 0) as retry_verdicts,
    coalesce(case when events.verdicts > 0 then events.escalations end, steps.escalations, 0) as escalations,
    coalesce(case when events.verdicts > 0 then events.continues end, steps.continues, 0) as continues,
    coalesce(events.provider_retries, 0) as provider_retries,
    coalesce(events.stall_events, 0) as stall_events,
    coalesce(events.doom_loops, 0) as doom_loops,
    coalesce(events.replayed_calls, 0) as replayed_calls,
    coalesce(events.slow_first_tokens, 0) as slow_first_tokens,
    greatest(coalesce(events.compactions, 0), coalesce(steps.compactions, 0)) as compactions,
    coalesce(events.requests_for_help, 0) as requests_for_help,
    coalesce(steps.partial_steps, 0) as partial_steps,
    changed._ingest_seq
from changed
left join events
    on changed.tenant_id = events.tenant_id
    and changed.session_id = events.session_id
left join steps
    on changed.tenant_id = steps.tenant_id
    and changed.session_id = steps.session_id
where events.session_id is not null
    or steps.session_id is not null
