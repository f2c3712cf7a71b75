with sessions as (
    select
        observed.*,
        tree.colony_id,
        {{ waits_between_turns('observed.session_kind', 'observed.agent_runtime') }} as waits_between_turns
    from {{ ref('int_sessions__observations_merged') }} as observed
    inner join {{ ref('int_sessions__tree_resolved') }} as tree using (tenant_id, session_id)
),

devices as (
    select * from {{ ref('int_devices__heartbeats') }}
),

current_statuses as (
    select tenant_id, session_id, status, idle_reason, evidence_kind, started_at
    from {{ ref('fct_status_intervals') }}
    where interval_kind = 'status'
        and is_current
),

current_phases as (
    select tenant_id, session_id, phase, started_at
    from {{ ref('fct_status_intervals') }}
    where interval_kind = 'phase'
        and is_current
),

runs as (
    select
        tenant_id,
        session_id,
        {{ latest('run_key', pair('started_at', 'run_key')) }} filter (where outcome is null) as active_run_id,
        bool_and(outcome is not null) as have_all_ended
    from {{ ref('fct_agent_runs') }}
    group by tenant_id, session_id
),

workers as (
    select
        tenant_id,
        parent_session_id as session_id,
        count(*) as total_workers,
        count(*) filter (where outcome is null) as in_flight_workers
    from {{ ref('fct_agent_runs') }}
    where run_kind = 'worker'
        and parent_session_id is not null
    group by tenant_id, parent_session_id
),

-- A colony's template is no list of things to do.
tasks as (
    select
        tenant_id,
        list_id as session_id,
        count(*) filter (where state in ('open', 'working')) as open_task_count,
        count(*) filter (where state = 'open') as queue_depth,
        count(*) filter (where state = 'done') as done_task_count,
        count(*) as task_count,
        {{ latest('task_id', pair('coalesce(updated_at, claimed_at, created_at)', 'task_id')) }}
            filter (where state = 'working') as current_task_id
    from {{ ref('fct_tasks') }}
    where item = 'task'
        and list_kind <> 'colony_template'
    group by tenant_id, list_id
),

-- Nothing of the list can be begun: every open task waits for one that is not done, and none is at work.
blocked_lists as (
    select
        tenant_id,
        list_id as session_id
    from {{ ref('mart_task_progress') }}
    where list_kind <> 'colony_template'
        and state in ('open', 'working')
    group by tenant_id, list_id
    having bool_and(is_blocked)
),

joined as (
    select
        sessions.tenant_id,
        sessions.session_id,
        sessions.colony_id,
        sessions.waits_between_turns,
        sessions.device_id,
        sessions.session_kind,
        sessions.status as session_status,
        sessions.started_at as session_started_at,
        current_statuses.status as interval_status,
        current_statuses.idle_reason,
        current_statuses.evidence_kind,
        current_statuses.started_at as status_since,
        current_phases.phase,
        runs.active_run_id,
        coalesce(runs.have_all_ended, false) as have_all_runs_ended,
        signs.active_node,
        signs.status_source,
        tasks.current_task_id,
        coalesce(tasks.open_task_count, 0) as open_task_count,
        coalesce(tasks.queue_depth, 0) as queue_depth,
        coalesce(tasks.done_task_count, 0) as done_task_count,
        coalesce(tasks.task_count, 0) as task_count,
        coalesce(workers.total_workers, 0) as total_workers,
        coalesce(workers.in_flight_workers, 0) as in_flight_workers,
        signs.context_tokens_last,
        signs.context_tokens_max,
        signs.context_limit_tokens,
        coalesce(signs.recent_doom_loops, 0) as recent_doom_loops,
        coalesce(signs.recent_inactive, 0) as recent_inactive,
        blocked_lists.session_id is not null as is_list_blocked,
        devices.is_clock_ahead,
        signs.first_event_at,
        coalesce(signs.last_event_at, sessions.updated_at) as last_event_at,
        devices.last_received_at as known_as_of,
        tenants.known_as_of as taken_at
    from sessions
    inner join devices using (tenant_id, device_id)
    inner join {{ ref('int_tenants__known_as_of') }} as tenants using (tenant_id)
    left join {{ ref('int_status__session_signs') }} as signs using (tenant_id, session_id)
    left join current_statuses using (tenant_id, session_id)
    left join current_phases using (tenant_id, session_id)
    left join runs using (tenant_id, session_id)
    left join workers using (tenant_id, session_id)
    left join tasks using (tenant_id, session_id)
    left join blocked_lists
        on sessions.tenant_id = blocked_lists.tenant_id
        and sessions.session_id = blocked_lists.session_id
),

-- Silence is measured to the last word of the session's own device: what came after nobody can have seen.
measured as (
    select
        *,
        greatest({{ seconds_between('last_event_at', 'known_as_of') }}, 0) as silent_seconds,
        {{ seconds_between('known_as_of', 'taken_at') }} as device_silent_seconds,
        coalesce(
            {{ seconds_between('known_as_of', 'last_event_at') }} > {{ var('clock_tolerance_seconds') }}, false
        ) or is_clock_ahead as is_clock_wrong
    from joined
),

-- Nothing here says `dead`: an upload that stopped is the device's silence, and a queen that waits is at her work.
judged as (
    select
        *,
        case
            when interval_status = 'ended' then 'ended'
            when not waits_between_turns
                and (have_all_runs_ended or session_status in ('completed', 'failed', 'cancelled'))
                then 'ended'
            when is_clock_wrong then 'clock_wrong'
            when device_silent_seconds > {{ var('device_silence_seconds') }} then 'silent_device'
            when interval_status = 'stalled' then 'stalled'
            when interval_status = 'waiting' then 'waiting'
            when session_status = 'paused' then 'waiting'
            when last_event_at is null then 'unknown'
            when silent_seconds > {{ var('silence_seconds') }} then 'silent_agent'
            else 'working'
        end as status
    from measured
)

select
    session_id,
    tenant_id,
    device_id,
    colony_id,
    active_run_id,
    current_task_id,
    active_node,
    session_kind,
    {{ agent_kind_of_session('session_kind') }} as agent_kind,
    phase,
    status,
    case
        when status <> 'waiting' then null
        when idle_reason is not null then idle_reason
        when session_status = 'paused' then 'paused'
    end as idle_reason,
    case
        when status = 'ended' then null
        when device_silent_seconds > {{ var('device_silence_seconds') }} then 'silent_device'
        when status in ('silent_agent', 'stalled') then 'silent_agent'
        else 'alive'
    end as liveness,
    case
        when status = 'ended' then null
        when idle_reason = 'input_requested' then 'question'
        when idle_reason = 'escalated' then 'approval'
        when idle_reason = 'payment_required' then 'payment'
        when idle_reason = 'credentials_required' then 'credentials'
        when is_list_blocked then 'task'
        when interval_status = 'waiting' and in_flight_workers > 0 then 'workers'
    end as blocked_kind,
    coalesce(status_source, 'file') as status_source,
    open_task_count,
    queue_depth,
    done_task_count,
    task_count,
    total_workers,
    in_flight_workers,
    context_tokens_last,
    context_tokens_max,
    context_limit_tokens,
    -- Version 1. Up to 40 for an open stall, 15 for each of up to two tool loops and 10 for a stream that broke off in the
    -- last hour, and a point for each minute of silence at work, up to 40; never above 100. Who waits or has ended has
    -- none for silence.
    case
        when status = 'ended' then 0
        else least(
            100,
            case when interval_status = 'stalled' then 40 else 0 end
            + 15 * least(recent_doom_loops, 2)
            + 10 * least(recent_inactive, 1)
            + case
                when status in ('working', 'silent_agent')
                    then least(40, cast(floor(coalesce(silent_seconds, 0)) as bigint) // 60)
                else 0
            end
        )
    end as stall_score,
    cast(1 as bigint) as stall_score_version,
    silent_seconds,
    device_silent_seconds,
    greatest({{ seconds_between('coalesce(session_started_at, first_event_at)', 'known_as_of') }}, 0) as uptime_seconds,
    is_clock_wrong,
    status_since,
    last_event_at,
    known_as_of,
    taken_at
from judged
