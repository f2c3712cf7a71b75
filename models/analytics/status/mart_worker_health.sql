with snapshot as (
    select * from {{ ref('mart_status_snapshot') }}
),

counts as (
    select * from {{ ref('int_status__session_counts') }}
),

-- A stall that goes on ends where silence begins: nobody knows what a session did of which nothing was heard since.
intervals as (
    select
        i.tenant_id,
        i.session_id,
        sum(
            case
                when i.is_current
                    then greatest(
                        least(
                            {{ seconds_between('i.started_at', 'snapshot.known_as_of') }},
                            {{ seconds_between('i.started_at', 'greatest(snapshot.last_event_at, i.started_at)') }}
                            + {{ var('silence_seconds') }}
                        ),
                        0
                    )
                else i.seconds
            end
        ) filter (where i.status = 'stalled') as stalled_seconds,
        sum(i.seconds) filter (where i.status = 'silent') as silent_seconds,
        sum(i.seconds) filter (where i.status = 'working') as working_seconds,
        sum(i.seconds) filter (where i.status = 'waiting') as waiting_seconds
    from {{ ref('fct_status_intervals') }} as i
    inner join snapshot using (tenant_id, session_id)
    where i.interval_kind = 'status'
    group by i.tenant_id, i.session_id
),

runs as (
    select
        tenant_id,
        session_id,
        {{ latest('outcome', pair('started_at', 'run_key')) }} as outcome,
        {{ latest('error_class', pair('started_at', 'run_key')) }} as error_class,
        cast(sum(resurrections) as bigint) as resurrections,
        bool_or(is_synthesised) as is_synthesised,
        max(started_at) filter (where outcome is null and state = 'running') as open_since
    from {{ ref('fct_agent_runs') }}
    group by tenant_id, session_id
),

totals as (
    select * from {{ ref('int_usage__session_totals') }}
)

select
    snapshot.session_id,
    snapshot.tenant_id,
    sessions.parent_session_id,
    snapshot.colony_id,
    snapshot.session_kind,
    snapshot.status as session_status,
    runs.outcome,
    runs.error_class,
    -- Never a text: the kind of the last event of trouble.
    counts.evidence_kind,
    coalesce(totals.turns, 0) as total_steps,
    coalesce(counts.accepts, 0) as accepts,
    coalesce(counts.retry_verdicts, 0) as retry_verdicts,
    coalesce(counts.escalations, 0) as escalations,
    coalesce(counts.continues, 0) as continues,
    coalesce(counts.provider_retries, 0) as provider_retries,
    coalesce(counts.stall_events, 0) as stall_events,
    coalesce(counts.doom_loops, 0) as doom_loops,
    coalesce(counts.replayed_calls, 0) as replayed_calls,
    coalesce(counts.slow_first_tokens, 0) as slow_first_tokens,
    coalesce(counts.compactions, 0) as compactions,
    coalesce(counts.requests_for_help, 0) as requests_for_help,
    coalesce(counts.partial_steps, 0) as partial_steps,
    coalesce(runs.resurrections, 0) as resurrections,
    snapshot.stall_score,
    coalesce(intervals.stalled_seconds, 0) as stalled_seconds,
    coalesce(intervals.silent_seconds, 0)
    + case when snapshot.status = 'silent_agent' then snapshot.silent_seconds else 0 end as silent_seconds,
    coalesce(intervals.working_seconds, 0) as working_seconds,
    coalesce(intervals.waiting_seconds, 0) as waiting_seconds,
    case
        when runs.open_since is not null
            then greatest({{ seconds_between('runs.open_since', 'snapshot.known_as_of') }}, 0)
    end as seconds_so_far,
    snapshot.done_task_count,
    snapshot.task_count,
    coalesce(runs.is_synthesised, false) as is_synthesised,
    -- Open, and without a sign of life for longer than the setting: it may hang, or be done with no one to say so.
    coalesce(
        runs.open_since is not null
        and snapshot.status not in ('ended', 'waiting')
        and snapshot.silent_seconds > {{ var('hung_seconds') }},
        false
    ) as is_possibly_hung,
    snapshot.last_event_at,
    snapshot.known_as_of
from snapshot
inner join {{ ref('int_sessions__observations_merged') }} as sessions using (tenant_id, session_id)
left join counts using (tenant_id, session_id)
left join intervals using (tenant_id, session_id)
left join runs using (tenant_id, session_id)
left join totals using (tenant_id, session_id)
