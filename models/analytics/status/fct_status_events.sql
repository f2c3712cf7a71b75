{{
    config(
        materialized='incremental',
        meta={'replace': {'keys': ['tenant_id', 'session_id'], 'changed': 'changed_sessions'}}
    )
}}

with changed as (
    {{ changed_sessions() }}
),

sessions as (
    select * from {{ ref('int_sessions__observations_merged') }}
),

events as (
    select
        e.*,
        changed._ingest_seq
    from {{ ref('stg_wire__status_events') }} as e
    inner join changed using (tenant_id, session_id)
),

-- Who let us wait for the first token is the model of the turn that came next.
next_turns as (
    select
        events.tenant_id,
        events.status_event_id,
        {{ earliest('turns.model', pair('turns.occurred_at', 'turns.turn_id')) }} as model
    from events
    inner join {{ ref('fct_llm_turns') }} as turns
        on events.tenant_id = turns.tenant_id
        and events.session_id = turns.session_id
        and events.occurred_at <= turns.occurred_at
    where events.kind in ('slow_first_token', 'nudged', 'inactive')
        and turns.turn_source = 'event'
    group by events.tenant_id, events.status_event_id
)

select
    events.status_event_id,
    events.tenant_id,
    events.session_id,
    events.task_id,
    events.kind,
    events.agent_kind,
    events.agent_runtime,
    events.node_id,
    next_turns.model,
    events.phase,
    events.verdict,
    events.task_status,
    events.error_class,
    events.compaction_trigger,
    case
        when events.occurred_at is not null then coalesce(events.time_basis, 'local_resolved')
        when sessions.started_at is not null then 'session_start'
        else 'received'
    end as time_basis,
    events.iteration,
    events.retry_count,
    events.context_tokens,
    events.context_limit_tokens,
    events.wake_kind,
    events.open_threads,
    events.open_reminders,
    events.seconds,
    {{ utc_date('coalesce(events.occurred_at, sessions.started_at, events._received_at)') }} as event_date,
    coalesce(events.occurred_at, sessions.started_at, events._received_at) as occurred_at,
    events.resets_at,
    events._ingest_seq
from events
left join sessions using (tenant_id, session_id)
left join next_turns using (tenant_id, status_event_id)
