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
        s.tenant_id,
        s.session_id,
        {{ waits_between_turns('s.session_kind', 's.agent_runtime') }} as waits_between_turns,
        changed._ingest_seq
    from {{ ref('int_sessions__observations_merged') }} as s
    inner join changed using (tenant_id, session_id)
),

-- What happened, and at what time it is known to have happened: an event without a clock begins nothing.
happenings as (
    select
        tenant_id,
        session_id,
        kind,
        phase,
        occurred_at as happened_at
    from {{ ref('fct_status_events') }}
    where time_basis not in ('session_start', 'received')
        and kind not in (
            'nudged', 'slow_first_token', 'tool_replayed', 'context_updated', 'compacted', 'task_created', 'task_updated',
            'task_deleted', 'task_list_reset'
        )
    union all
    select
        tenant_id,
        session_id,
        'run_' || kind as kind,
        cast(null as varchar) as phase,
        occurred_at as happened_at
    from {{ ref('stg_wire__agent_runs') }}
    where occurred_at is not null
    union all
    select
        tenant_id,
        session_id,
        case
            when stop_reason <> 'tool_calls' and {{ waits_between_turns('agent_kind', 'agent_runtime') }} then 'turn_ended'
            else 'turn'
        end as kind,
        cast(null as varchar) as phase,
        occurred_at as happened_at
    from {{ ref('fct_llm_turns') }}
    where time_basis not in ('session_start', 'file_mtime', 'received')
    union all
    select
        tenant_id,
        session_id,
        'tool_call' as kind,
        cast(null as varchar) as phase,
        occurred_at as happened_at
    from {{ ref('stg_wire__tool_calls') }}
    where occurred_at is not null
),

-- What each of them says of the state. A queen's loop waits for a person when it starts and never ends by itself: the
-- end of a run or of her turn lets her wait, as it does a session that a person leads. Only an event of trouble makes
-- `stalled`: silence is no bug.
judged as (
    select
        happenings.*,
        sessions._ingest_seq,
        case
            when happenings.kind = 'phase_changed' then null
            when happenings.kind in ('stalled', 'inactive', 'doom_loop') then 'stalled'
            when happenings.kind in (
                'input_requested', 'escalated', 'payment_required', 'credentials_required', 'run_paused'
            ) then 'waiting'
            when sessions.waits_between_turns and happenings.kind in ('turn_ended', 'turn_completed', 'loop_started')
                then 'waiting'
            when happenings.kind in ('run_completed', 'run_failed', 'run_cancelled', 'run_report', 'loop_completed')
                then case when sessions.waits_between_turns then 'waiting' else 'ended' end
            else 'working'
        end as status,
        case
            when happenings.kind in ('input_requested', 'escalated', 'payment_required', 'credentials_required')
                then happenings.kind
            when happenings.kind = 'run_paused' then 'paused'
            when sessions.waits_between_turns and happenings.kind in ('turn_ended', 'turn_completed') then 'turn_ended'
            when sessions.waits_between_turns and happenings.kind = 'loop_started' then 'awaiting_input'
            when sessions.waits_between_turns
                and happenings.kind in ('run_completed', 'run_failed', 'run_cancelled', 'run_report', 'loop_completed')
                then 'run_ended'
        end as idle_reason
    from happenings
    inner join sessions using (tenant_id, session_id)
),

last_signs as (
    select
        tenant_id,
        session_id,
        max(happened_at) as last_sign_at
    from judged
    group by tenant_id, session_id
),

phase_instants as (
    select
        tenant_id,
        session_id,
        max(phase) as phase,
        happened_at,
        max(_ingest_seq) as _ingest_seq
    from judged
    where kind = 'phase_changed'
        and phase is not null
    group by tenant_id, session_id, happened_at
),

phase_changes as (
    select
        *,
        lag(phase) over (partition by tenant_id, session_id order by happened_at) as phase_before
    from phase_instants
),

phase_starts as (
    select *
    from phase_changes
    where phase is distinct from phase_before
),

phases as (
    select
        tenant_id,
        session_id,
        phase,
        happened_at as started_at,
        lead(happened_at) over (partition by tenant_id, session_id order by happened_at) as ended_at,
        _ingest_seq
    from phase_starts
),

-- Of what happened at one instant the last word counts: trouble stands above a wish, an end above both.
ranked as (
    select
        *,
        row_number() over (
            partition by tenant_id, session_id, happened_at
            order by
                case status when 'working' then 1 when 'waiting' then 2 when 'stalled' then 3 else 4 end desc,
                idle_reason,
                kind
        ) as position_in_instant
    from judged
    where status is not null
),

points as (
    select
        *,
        lead(happened_at) over (partition by tenant_id, session_id order by happened_at) as next_at
    from ranked
    where position_in_instant = 1
),

-- A worker of whom nothing is heard for long is silent from then on until the next sign of life.
split as (
    select
        tenant_id,
        session_id,
        kind,
        status,
        idle_reason,
        happened_at,
        _ingest_seq
    from points
    union all
    select
        tenant_id,
        session_id,
        'silence' as kind,
        'silent' as status,
        cast(null as varchar) as idle_reason,
        {{ seconds_after('happened_at', var('silence_seconds')) }} as happened_at,
        _ingest_seq
    from points
    where status = 'working'
        and {{ seconds_between('happened_at', 'next_at') }} > {{ var('silence_seconds') }}
),

compared as (
    select
        *,
        lag(status) over chronology as status_before,
        lag(idle_reason) over chronology as idle_reason_before
    from split
    window chronology as (partition by tenant_id, session_id order by happened_at)
),

statuses as (
    select
        tenant_id,
        session_id,
        status,
        idle_reason,
        kind,
        happened_at as started_at,
        lead(happened_at) over (partition by tenant_id, session_id order by happened_at) as ended_at,
        _ingest_seq
    from compared
    where status is distinct from status_before
        or idle_reason is distinct from idle_reason_before
),

-- The phase in which each status began, by one pass in the order of time: a join by ranges of time grows with the square
-- of a session's events. A phase that begins with a status belongs to it.
phases_and_statuses as (
    select
        tenant_id,
        session_id,
        cast(null as varchar) as status,
        cast(null as varchar) as idle_reason,
        cast(null as varchar) as kind,
        phase,
        started_at,
        ended_at,
        _ingest_seq,
        1 as position_in_instant
    from phases
    union all
    select
        tenant_id,
        session_id,
        status,
        idle_reason,
        kind,
        cast(null as varchar) as phase,
        started_at,
        ended_at,
        _ingest_seq,
        2 as position_in_instant
    from statuses
),

carried as (
    select
        *,
        last_value(phase ignore nulls) over (
            partition by tenant_id, session_id
            order by started_at, position_in_instant
            rows between unbounded preceding and current row
        ) as current_phase
    from phases_and_statuses
),

statuses_with_phase as (
    select
        tenant_id,
        session_id,
        status,
        idle_reason,
        kind,
        current_phase as phase,
        started_at,
        ended_at,
        _ingest_seq
    from carried
    where position_in_instant = 2
),

intervals as (
    select
        tenant_id,
        session_id,
        'phase' as interval_kind,
        phase,
        cast(null as varchar) as status,
        cast(null as varchar) as idle_reason,
        'phase_changed' as evidence_kind,
        started_at,
        ended_at,
        _ingest_seq
    from phases
    union all
    select
        tenant_id,
        session_id,
        'status' as interval_kind,
        phase,
        status,
        idle_reason,
        kind as evidence_kind,
        started_at,
        ended_at,
        _ingest_seq
    from statuses_with_phase
)

-- An open interval is as long as it was observed: what a session did after its last sign of life nobody knows.
select
    intervals.tenant_id,
    intervals.session_id,
    intervals.interval_kind,
    intervals.phase,
    intervals.status,
    intervals.idle_reason,
    intervals.evidence_kind,
    {{ seconds_between('intervals.started_at', 'coalesce(intervals.ended_at, last_signs.last_sign_at)') }} as seconds,
    intervals.ended_at is null as is_current,
    {{ utc_date('intervals.started_at') }} as started_date,
    intervals.started_at,
    intervals.ended_at,
    intervals._ingest_seq
from intervals
inner join last_signs using (tenant_id, session_id)
