{{
    config(
        materialized='incremental',
        meta={'replace': {'keys': ['tenant_id', 'session_id'], 'changed': 'changed_sessions'}}
    )
}}

with changed as (
    {{ changed_sessions() }}
),

events as (
    select
        e.*,
        changed._ingest_seq as changed_seq
    from {{ ref('fct_status_events') }} as e
    inner join changed using (tenant_id, session_id)
    where e.time_basis not in ('session_start', 'received')
),

signs as (
    select
        tenant_id,
        session_id,
        'event' as source,
        occurred_at as signed_at,
        changed_seq
    from events
    union all
    select
        r.tenant_id,
        r.session_id,
        case r.origin when 'event' then 'event' else 'log' end as source,
        r.occurred_at as signed_at,
        changed._ingest_seq as changed_seq
    from {{ ref('stg_wire__agent_runs') }} as r
    inner join changed
        on r.tenant_id = changed.tenant_id
        and r.session_id = changed.session_id
    where r.occurred_at is not null
    union all
    select
        t.tenant_id,
        t.session_id,
        case t.turn_source when 'event' then 'event' else 'log' end as source,
        t.occurred_at as signed_at,
        changed._ingest_seq as changed_seq
    from {{ ref('fct_llm_turns') }} as t
    inner join changed
        on t.tenant_id = changed.tenant_id
        and t.session_id = changed.session_id
    where t.time_basis not in ('session_start', 'file_mtime', 'received')
    union all
    select
        c.tenant_id,
        c.session_id,
        case c.origin when 'event' then 'event' else 'log' end as source,
        c.occurred_at as signed_at,
        changed._ingest_seq as changed_seq
    from {{ ref('stg_wire__tool_calls') }} as c
    inner join changed
        on c.tenant_id = changed.tenant_id
        and c.session_id = changed.session_id
    where c.occurred_at is not null
),

spans as (
    select
        tenant_id,
        session_id,
        min(source) as status_source,
        min(signed_at) as first_event_at,
        max(signed_at) as last_event_at,
        max(changed_seq) as _ingest_seq
    from signs
    group by tenant_id, session_id
),

fills as (
    select
        tenant_id,
        session_id,
        {{ latest('context_tokens', pair('occurred_at', 'status_event_id')) }} as context_tokens_last,
        max(context_tokens) as context_tokens_max,
        {{ latest('context_limit_tokens', pair('occurred_at', 'status_event_id')) }} as context_limit_tokens
    from events
    where kind = 'context_updated'
        and context_tokens is not null
    group by tenant_id, session_id
),

nodes as (
    select
        tenant_id,
        session_id,
        {{ latest('node_id', pair('occurred_at', 'status_event_id')) }} as active_node
    from events
    where node_id is not null
    group by tenant_id, session_id
),

-- Trouble of the session's last hour, by its own last sign of life.
troubles as (
    select
        events.tenant_id,
        events.session_id,
        count(*) filter (where events.kind = 'doom_loop') as recent_doom_loops,
        count(*) filter (where events.kind = 'inactive') as recent_inactive,
        count(*) filter (where events.kind = 'stalled') as recent_stalls
    from events
    inner join spans using (tenant_id, session_id)
    where {{ seconds_between('events.occurred_at', 'spans.last_event_at') }} < 3600
    group by events.tenant_id, events.session_id
)

select
    spans.session_id,
    spans.tenant_id,
    nodes.active_node,
    spans.status_source,
    fills.context_tokens_last,
    fills.context_tokens_max,
    fills.context_limit_tokens,
    coalesce(troubles.recent_doom_loops, 0) as recent_doom_loops,
    coalesce(troubles.recent_inactive, 0) as recent_inactive,
    coalesce(troubles.recent_stalls, 0) as recent_stalls,
    spans.first_event_at,
    spans.last_event_at,
    spans._ingest_seq
from spans
left join fills using (tenant_id, session_id)
left join nodes using (tenant_id, session_id)
left join troubles using (tenant_id, session_id)
