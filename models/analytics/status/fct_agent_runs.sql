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
    select
        s.*,
        coalesce(s.session_kind = 'worker', false) as is_worker,
        changed._ingest_seq as changed_seq
    from {{ ref('int_sessions__observations_merged') }} as s
    inner join changed using (tenant_id, session_id)
),

-- A worker runs once, whatever ids its events bear: its session is its run. Other sessions run once for each trigger.
steps as (
    select
        w.*,
        case when sessions.is_worker then sessions.session_id else coalesce(w.run_id, sessions.session_id) end as run_key
    from {{ ref('stg_wire__agent_runs') }} as w
    inner join sessions
        on w.tenant_id = sessions.tenant_id
        and w.session_id = sessions.session_id
),

activity as (
    select tenant_id, session_id, occurred_at
    from {{ ref('fct_llm_turns') }}
    where time_basis not in ('session_start', 'file_mtime', 'received')
    union all
    select tenant_id, session_id, occurred_at
    from {{ ref('stg_wire__tool_calls') }}
    where occurred_at is not null
    union all
    select tenant_id, session_id, occurred_at
    from {{ ref('fct_status_events') }}
    where time_basis not in ('session_start', 'received')
),

summaries as (
    select
        s.tenant_id,
        s.session_id,
        {{ latest('s.status', pair('s.started_at', 's.record_id')) }} as status
    from {{ ref('stg_wire__run_summaries') }} as s
    inner join sessions using (tenant_id, session_id)
    group by s.tenant_id, s.session_id
),

activity_spans as (
    select
        activity.tenant_id,
        activity.session_id,
        min(activity.occurred_at) as first_activity_at,
        max(activity.occurred_at) as last_activity_at
    from activity
    inner join sessions using (tenant_id, session_id)
    group by activity.tenant_id, activity.session_id
),

-- A worker that was killed left no step at all, an early agent has no log of its runs: they ran all the same.
run_keys as (
    select distinct tenant_id, session_id, run_key
    from steps
    union
    select sessions.tenant_id, sessions.session_id, sessions.session_id as run_key
    from sessions
    left join steps
        on sessions.tenant_id = steps.tenant_id
        and sessions.session_id = steps.session_id
    where sessions.is_worker
        or (sessions.session_kind in ('agent_session', 'secondary_graph', 'legacy_run') and steps.session_id is null)
),

begun as (
    select
        tenant_id,
        session_id,
        run_key,
        min(occurred_at) filter (where kind = 'started') as first_at,
        max(occurred_at) as last_at
    from steps
    where kind in ('started', 'resumed', 'resurrected')
    group by tenant_id, session_id, run_key
),

-- A run that was taken up again after an end has not ended. One whose only start lies behind its end has a clock that was
-- set.
ends as (
    select
        steps.*,
        case
            when steps.kind = 'report' then steps.outcome
            when steps.kind = 'completed' then 'success'
            when steps.kind = 'failed' then 'failed'
            when steps.kind = 'cancelled' then 'stopped'
        end as reported_outcome,
        -- What the worker reported stands above what its host saw of it.
        case when steps.kind = 'report' and steps.outcome is not null then 2 else 1 end as reported_rank
    from steps
    left join begun using (tenant_id, session_id, run_key)
    where steps.kind in ('report', 'completed', 'failed', 'cancelled')
        and (
            begun.last_at is null
            or steps.occurred_at is null
            or steps.occurred_at >= begun.last_at
            or steps.occurred_at < begun.first_at
        )
),

ended as (
    select
        tenant_id,
        session_id,
        run_key,
        max(occurred_at) as ended_at
    from ends
    group by tenant_id, session_id, run_key
),

reported as (
    select
        tenant_id,
        session_id,
        run_key,
        {{ latest('reported_outcome', pair('reported_rank', pair('occurred_at', 'record_id'))) }} as outcome,
        {{ latest("case when reported_rank = 2 then 'report' else origin end", pair('reported_rank', pair('occurred_at', 'record_id'))) }}
            as evidence
    from ends
    where reported_outcome is not null
    group by tenant_id, session_id, run_key
),

-- Both logs of a run say the same thing: two steps of one kind and instant are one.
measured as (
    select
        tenant_id,
        session_id,
        run_key,
        max(run_id) as run_id,
        max(correlation_id) as correlation_id,
        max(error_class) as error_class,
        max(tokens_used) filter (where kind = 'report') as reported_tokens,
        max(tool_calls_used) filter (where kind = 'report') as reported_tool_calls,
        max(duration_seconds) filter (where kind = 'report') as reported_seconds,
        count(distinct occurred_at) filter (where kind = 'resurrected') as resurrections,
        count(distinct occurred_at) filter (where kind = 'paused') as pauses,
        min(occurred_at) filter (where kind = 'started') as started_at,
        bool_or(kind = 'report') as has_report,
        count(*) as steps
    from steps
    group by tenant_id, session_id, run_key
),

-- Time between a pause and the next step of the run is not spent on it.
ordered as (
    select
        tenant_id,
        session_id,
        run_key,
        kind,
        occurred_at,
        lead(occurred_at) over (
            partition by tenant_id, session_id, run_key
            order by occurred_at, case when kind = 'paused' then 1 else 0 end, record_id
        ) as next_at
    from steps
    where occurred_at is not null
),

paused as (
    select
        tenant_id,
        session_id,
        run_key,
        sum({{ seconds_between('occurred_at', 'next_at') }}) as paused_seconds,
        bool_or(next_at is null) as is_paused
    from ordered
    where kind = 'paused'
    group by tenant_id, session_id, run_key
),

runs as (
    select
        run_keys.tenant_id,
        run_keys.session_id,
        run_keys.run_key,
        sessions.is_worker,
        sessions.parent_session_id,
        measured.run_id,
        measured.correlation_id,
        reported.outcome as reported_outcome,
        reported.evidence as reported_evidence,
        measured.error_class,
        sessions.status as session_status,
        measured.reported_tokens,
        measured.reported_tool_calls,
        measured.reported_seconds,
        coalesce(measured.resurrections, 0) as resurrections,
        coalesce(measured.pauses, 0) as pauses,
        coalesce(paused.paused_seconds, 0) as paused_seconds,
        coalesce(paused.is_paused, false) as is_paused,
        coalesce(measured.has_report, false) as has_report,
        activity_spans.first_activity_at is not null as has_activity,
        measured.started_at as reported_started_at,
        sessions.started_at as session_started_at,
        activity_spans.first_activity_at,
        ended.ended_at as reported_ended_at,
        sessions.ended_at as session_ended_at,
        -- A session with one run, and no queen who talks beside it, is that run.
        count(*) over (partition by run_keys.tenant_id, run_keys.session_id) = 1
        and coalesce(sessions.session_kind not in ('queen', 'colony_queen'), false) as is_whole_session,
        activity_spans.last_activity_at,
        summaries.status as summary_status,
        -- The session's own file describes its last run only.
        row_number() over (
            partition by run_keys.tenant_id, run_keys.session_id
            order by measured.started_at desc nulls last, run_keys.run_key desc
        ) = 1 as is_last,
        sessions.changed_seq
    from run_keys
    inner join sessions using (tenant_id, session_id)
    left join measured using (tenant_id, session_id, run_key)
    left join reported using (tenant_id, session_id, run_key)
    left join ended using (tenant_id, session_id, run_key)
    left join paused using (tenant_id, session_id, run_key)
    left join activity_spans using (tenant_id, session_id)
    left join summaries using (tenant_id, session_id)
),

with_outcome as (
    select
        *,
        coalesce(
            reported_outcome,
            case
                when is_last and session_status = 'completed' then 'success'
                when is_last and session_status = 'failed' then 'failed'
                when is_last and session_status = 'cancelled' then 'stopped'
                -- L1 is stale after a run that crashed: it speaks where there was one run, and no state says otherwise.
                when is_whole_session and session_status is null and summary_status = 'success' then 'success'
                when is_whole_session and session_status is null and summary_status = 'degraded' then 'partial'
                when is_whole_session and session_status is null and summary_status = 'failure' then 'failed'
            end
        ) as outcome,
        case
            when reported_outcome is not null then reported_evidence
            when is_last and session_status in ('completed', 'failed', 'cancelled') then 'state'
            when is_whole_session and session_status is null
                and summary_status in ('success', 'degraded', 'failure') then 'summary'
        end as evidence
    from runs
),

-- A file that says how it ended may not say when: then the last sign of life does.
resolved as (
    select
        *,
        case
            when is_whole_session
                then coalesce(least(reported_started_at, first_activity_at), reported_started_at, first_activity_at, session_started_at)
            else coalesce(reported_started_at, first_activity_at, session_started_at)
        end as started_at,
        case
            when reported_ended_at is not null then reported_ended_at
            when evidence in ('state', 'summary') and is_whole_session
                then coalesce(greatest(session_ended_at, last_activity_at), session_ended_at, last_activity_at)
            when evidence = 'state' then session_ended_at
        end as ended_at
    from with_outcome
),

shared_runs as (
    select tenant_id, session_id, run_key, started_at, ended_at
    from resolved
    where not is_whole_session and started_at is not null
),

happened as (
    select t.tenant_id, t.session_id, 'turn' as kind, t.turn_id as happened_id, t.agent_kind, t.occurred_at
    from {{ ref('fct_llm_turns') }} as t
    inner join sessions using (tenant_id, session_id)
    union all
    select e.tenant_id, e.session_id, 'event' as kind, e.status_event_id as happened_id, e.agent_kind, e.occurred_at
    from {{ ref('fct_status_events') }} as e
    inner join sessions using (tenant_id, session_id)
),

happened_beside_queens as (
    select h.*
    from happened as h
    inner join (select distinct tenant_id, session_id from shared_runs) as s using (tenant_id, session_id)
    where h.agent_kind <> 'queen' and h.occurred_at is not null
),

-- A session with one run is that run, all of it. Runs that share a session have what others than its queen did while they
-- ran; where two ran at once, the one that began later: nothing is counted twice.
happened_in as (
    {{ latest_run_at('happened_beside_queens', 'shared_runs') }}
    union all
    select h.tenant_id, h.session_id, h.kind, h.happened_id, r.run_key
    from happened as h
    inner join resolved as r using (tenant_id, session_id)
    where r.is_whole_session
),

turns as (
    select
        h.tenant_id,
        h.session_id,
        h.run_key,
        count(*) as turns,
        cast(sum(t.input_tokens) as bigint) as input_tokens,
        cast(sum(t.output_tokens) as bigint) as output_tokens,
        count(*) filter (where t.reported_cost_usd is null) as unreported_turns,
        sum(t.reported_cost_usd) as reported_cost_usd,
        min(t.occurred_at) as first_turn_at
    from happened_in as h
    inner join {{ ref('fct_llm_turns') }} as t
        on h.tenant_id = t.tenant_id
        and h.session_id = t.session_id
        and h.happened_id = t.turn_id
    where h.kind = 'turn'
    group by h.tenant_id, h.session_id, h.run_key
),

verdicts as (
    select
        h.tenant_id,
        h.session_id,
        h.run_key,
        count(*) filter (where e.verdict = 'ACCEPT') as accepts,
        count(*) filter (where e.verdict = 'RETRY') as retry_verdicts,
        count(*) filter (where e.verdict = 'ESCALATE') as escalations,
        count(*) filter (where e.verdict = 'CONTINUE') as continues,
        count(*) filter (where e.kind = 'retried') as retries,
        count(*) filter (where e.kind in ('stalled', 'inactive', 'doom_loop')) as stall_events
    from happened_in as h
    inner join {{ ref('fct_status_events') }} as e
        on h.tenant_id = e.tenant_id
        and h.session_id = e.session_id
        and h.happened_id = e.status_event_id
    where h.kind = 'event'
    group by h.tenant_id, h.session_id, h.run_key
),

-- A report that Hive makes up for a worker: it ran out of time, or there never was one. Its zeros are no measurements.
finished as (
    select
        resolved.*,
        coalesce(turns.turns, 0) as turns,
        turns.input_tokens,
        turns.output_tokens,
        coalesce(turns.unreported_turns, 0) as unreported_turns,
        turns.reported_cost_usd,
        turns.first_turn_at,
        coalesce(verdicts.accepts, 0) as accepts,
        coalesce(verdicts.retry_verdicts, 0) as retry_verdicts,
        coalesce(verdicts.escalations, 0) as escalations,
        coalesce(verdicts.continues, 0) as continues,
        coalesce(verdicts.retries, 0) as retries,
        coalesce(verdicts.stall_events, 0) as stall_events,
        coalesce(
            resolved.has_report
            and resolved.outcome = 'failed'
            and coalesce(resolved.reported_tokens, 0) = 0
            and coalesce(resolved.reported_seconds, 0) = 0
            and not resolved.has_activity,
            false
        ) as is_dispatch_fault
    from resolved
    left join turns using (tenant_id, session_id, run_key)
    left join verdicts using (tenant_id, session_id, run_key)
)

select
    tenant_id,
    session_id,
    run_key,
    run_id,
    correlation_id,
    parent_session_id,
    case when is_worker then 'worker' else 'run' end as run_kind,
    outcome,
    case
        when outcome in ('success', 'partial') then 'completed'
        when outcome in ('failed', 'timeout') then 'failed'
        when outcome = 'stopped' then 'killed'
        when outcome is not null then 'completed'
        when is_paused then 'paused'
        when started_at is null or (is_worker and not has_activity) then 'spawning'
        else 'running'
    end as state,
    evidence,
    error_class,
    turns,
    input_tokens,
    output_tokens,
    unreported_turns,
    reported_cost_usd,
    reported_tokens,
    reported_tool_calls,
    reported_seconds,
    -- An end before its start is a clock that was set: it has no length.
    case when ended_at >= started_at then {{ seconds_between('started_at', 'ended_at') }} end as wall_seconds,
    case
        when ended_at >= started_at then greatest({{ seconds_between('started_at', 'ended_at') }} - paused_seconds, 0)
    end as active_seconds,
    paused_seconds,
    -- A turn whose time is only that of its file may stand before the start.
    case when first_turn_at >= started_at then {{ seconds_between('started_at', 'first_turn_at') }} end
        as first_response_seconds,
    pauses,
    resurrections,
    accepts,
    retry_verdicts,
    escalations,
    continues,
    retries,
    stall_events,
    coalesce(outcome = 'timeout', false) or is_dispatch_fault as is_synthesised,
    is_dispatch_fault,
    resurrections >= {{ var('max_resurrections') }} as is_at_resurrection_limit,
    {{ utc_date('started_at') }} as started_date,
    started_at,
    ended_at,
    changed_seq as _ingest_seq
from finished
