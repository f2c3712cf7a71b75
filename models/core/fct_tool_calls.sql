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

calls as (
    select
        c.*,
        changed._ingest_seq
    from {{ ref('stg_wire__tool_calls') }} as c
    inner join changed using (tenant_id, session_id)
),

turns as (
    select
        t.turn_id,
        t.tenant_id,
        t.session_id,
        t.turn_source,
        t.model,
        t.occurred_at
    from {{ ref('fct_llm_turns') }} as t
    inner join changed using (tenant_id, session_id)
),

turn_sessions as (
    select
        tenant_id,
        session_id,
        bool_or(turn_source = 'event') as has_events,
        min(model) filter (where turn_source = 'event') as first_model,
        max(model) filter (where turn_source = 'event') as last_model,
        min(occurred_at) as first_turn_at
    from turns
    group by tenant_id, session_id
),

steps as (
    select
        s.tenant_id,
        s.step_id,
        coalesce(matched.match_rule in ('unmatched', 'alone'), false) as is_counted
    from {{ ref('stg_wire__node_steps') }} as s
    inner join changed using (tenant_id, session_id)
    left join {{ ref('int_usage__steps_matched') }} as matched using (tenant_id, step_id)
),

-- A call that both logs saw counts once: a step's call with its step. Compaction is no turn, nor are its calls.
counted as (
    select
        calls.*,
        {{ agent_kind_of_session('sessions.session_kind') }} as session_agent_kind,
        case when calls.origin = 'event' then turn_sessions.first_model else step_turns.model end as first_model,
        calls.origin = 'event' and turn_sessions.first_model <> turn_sessions.last_model as is_ambiguous,
        coalesce(
            calls.occurred_at,
            step_turns.occurred_at,
            turn_sessions.first_turn_at,
            sessions.started_at,
            calls._received_at
        ) as called_at
    from calls
    left join turn_sessions using (tenant_id, session_id)
    left join turns as step_turns
        on calls.tenant_id = step_turns.tenant_id
        and calls.step_id = step_turns.turn_id
    left join steps using (tenant_id, step_id)
    left join sessions using (tenant_id, session_id)
    where calls.origin = 'event'
        or coalesce(steps.is_counted, not turn_sessions.has_events, true)
),

-- Calls and event turns of a session with several models on one line of time; a call stands before a turn of the same
-- instant. The other sessions, nearly all, need no sorting.
timeline as (
    select
        tool_call_id as record_id,
        tenant_id,
        session_id,
        cast(null as varchar) as turn_model,
        0 as is_turn,
        called_at as happened_at
    from counted
    where origin = 'event'
        and is_ambiguous
    union all
    select
        turns.turn_id as record_id,
        turns.tenant_id,
        turns.session_id,
        turns.model as turn_model,
        1 as is_turn,
        turns.occurred_at as happened_at
    from turns
    inner join turn_sessions using (tenant_id, session_id)
    where turns.turn_source = 'event'
        and turn_sessions.first_model <> turn_sessions.last_model
),

-- A turn's event is written after its calls: the next turn is the one that called.
attributed as (
    select
        record_id,
        tenant_id,
        is_turn,
        coalesce(
            first_value(turn_model ignore nulls) over (
                partition by tenant_id, session_id
                order by happened_at, is_turn, record_id
                rows between current row and unbounded following
            ),
            last_value(turn_model ignore nulls) over (
                partition by tenant_id, session_id
                order by happened_at, is_turn, record_id
                rows between unbounded preceding and current row
            )
        ) as model
    from timeline
),

call_models as (
    select
        record_id,
        tenant_id,
        model
    from attributed
    where is_turn = 0
)

select
    counted.tool_call_id,
    counted.tenant_id,
    counted.session_id,
    case when counted.origin = 'step' then counted.session_agent_kind else counted.agent_kind end as agent_kind,
    counted.agent_runtime,
    coalesce(call_models.model, counted.first_model, 'unknown') as model,
    counted.tool_name,
    counted.is_error,
    counted.duration_seconds,
    {{ utc_date('counted.called_at') }} as usage_date,
    counted.called_at as occurred_at,
    counted._ingest_seq
from counted
left join call_models
    on counted.tenant_id = call_models.tenant_id
    and counted.tool_call_id = call_models.record_id
