{# A run of 31 days is at work in 745 hours, of its tenant and of the session that has it as a worker. #}
{{
    config(
        materialized='incremental',
        meta={'max_rows_per_input_row': 1600, 'replace': {'keys': ['tenant_id', 'activity_date'], 'changed': 'changed_activity_days'}}
    )
}}

with changed as (
    {{ changed_activity_days() }}
),

runs as (
    select
        tenant_id,
        session_id,
        parent_session_id,
        run_kind,
        started_at,
        {{ believed_end('started_at', 'ended_at') }} as ended_at
    from {{ ref('fct_agent_runs') }}
    where started_at is not null
),

-- An hour that begins at the very end of a run has no part in it.
run_hours as (
    select
        runs.*,
        {{ numbers_between(
            0,
            "greatest(0, (" ~ to_micros('ended_at') ~ " - " ~ to_micros(start_of_hour('started_at')) ~ " - 1) // 3600000000)"
        ) }} as hour_number
    from runs
),

hours as (
    select
        *,
        {{ seconds_after(start_of_hour('started_at'), 'hour_number * 3600') }} as hour_at,
        {{ seconds_after(start_of_hour('started_at'), '(hour_number + 1) * 3600') }} as hour_end_at
    from run_hours
),

dated_hours as (
    select
        hours.*,
        {{ utc_date('hours.hour_at') }} as activity_date
    from hours
),

-- The tenant as a whole, and each session that has workers: that one has a limit of its own.
scoped as (
    select
        dated_hours.*,
        scopes.scope,
        case when scopes.scope = 'session' then dated_hours.parent_session_id end as scope_session_id,
        changed._ingest_seq as changed_seq
    from dated_hours
    inner join changed using (tenant_id, activity_date)
    cross join (select 'tenant' as scope union all select 'session' as scope) as scopes
    where scopes.scope = 'tenant'
        or (dated_hours.run_kind = 'worker' and dated_hours.parent_session_id is not null)
),

-- Whoever ends at the instant another begins was not at work beside it.
steps as (
    select
        tenant_id,
        scope,
        scope_session_id,
        activity_date,
        hour_at,
        greatest(started_at, hour_at) as step_at,
        1 as step,
        1 as place
    from scoped
    union all
    select
        tenant_id,
        scope,
        scope_session_id,
        activity_date,
        hour_at,
        ended_at as step_at,
        -1 as step,
        case when ended_at > started_at then 0 else 2 end as place
    from scoped
    where ended_at < hour_end_at
),

counted as (
    select
        *,
        sum(step) over (
            partition by tenant_id, scope, scope_session_id, hour_at
            order by step_at, place
            rows between unbounded preceding and current row
        ) as at_work
    from steps
),

peaks as (
    select
        tenant_id,
        scope,
        scope_session_id,
        hour_at,
        max(at_work) as peak_runs
    from counted
    group by tenant_id, scope, scope_session_id, hour_at
),

totals as (
    select
        tenant_id,
        scope,
        scope_session_id,
        activity_date,
        hour_at,
        count(*) as runs,
        count(*) filter (where started_at >= hour_at) as started_runs,
        sum({{ seconds_between('greatest(started_at, hour_at)', 'least(ended_at, hour_end_at)') }}) as run_seconds,
        max(changed_seq) as changed_seq
    from scoped
    group by tenant_id, scope, scope_session_id, activity_date, hour_at
)

select
    totals.tenant_id,
    totals.scope_session_id,
    totals.scope,
    totals.runs,
    totals.started_runs,
    cast(peaks.peak_runs as bigint) as peak_runs,
    totals.run_seconds,
    totals.activity_date,
    totals.hour_at,
    totals.changed_seq as _ingest_seq
from totals
inner join peaks
    on totals.tenant_id = peaks.tenant_id
    and totals.scope = peaks.scope
    and totals.scope_session_id is not distinct from peaks.scope_session_id
    and totals.hour_at = peaks.hour_at
