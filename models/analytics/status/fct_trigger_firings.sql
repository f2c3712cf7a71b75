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
        t.*,
        changed._ingest_seq
    from {{ ref('stg_wire__triggers') }} as t
    inner join changed using (tenant_id, session_id)
    where t.occurred_at is not null
),

-- The schedule in force: the last one that was told before.
timeline as (
    select
        *,
        last_value(interval_seconds ignore nulls) over chronology as schedule_seconds,
        lag(occurred_at) over chronology as before_at,
        lag(kind) over chronology as kind_before
    from events
    where kind in ('available', 'activated', 'updated', 'fired', 'deactivated', 'removed')
    window chronology as (
        partition by tenant_id, session_id, trigger_id
        order by occurred_at, trigger_event_id
        rows between unbounded preceding and current row
    )
),

-- While it was off nothing was due.
firings as (
    select
        *,
        case
            when kind_before in ('fired', 'activated', 'updated') then {{ seconds_between('before_at', 'occurred_at') }}
        end as waited_seconds
    from timeline
    where kind = 'fired'
),

next_runs as (
    select
        firings.tenant_id,
        firings.trigger_event_id,
        {{ earliest('runs.run_key', pair('runs.started_at', 'runs.run_key')) }} as run_key
    from firings
    inner join {{ ref('fct_agent_runs') }} as runs
        on firings.tenant_id = runs.tenant_id
        and firings.session_id = runs.session_id
        and runs.started_at >= firings.occurred_at
    where {{ seconds_between('firings.occurred_at', 'runs.started_at') }} <= {{ var('fire_to_run_seconds') }}
    group by firings.tenant_id, firings.trigger_event_id
)

select
    firings.trigger_event_id as trigger_firing_id,
    firings.tenant_id,
    firings.session_id,
    firings.trigger_id,
    next_runs.run_key,
    firings.trigger_type,
    firings.schedule_seconds as interval_seconds,
    firings.waited_seconds,
    -- An interval and a half without a firing: one is missing, and another for each whole interval more.
    case
        when firings.schedule_seconds > 0 and firings.waited_seconds is not null
            then greatest(0, {{ bounded_count('round(' ~ share('firings.waited_seconds', 'firings.schedule_seconds') ~ ')') }} - 1)
    end as missed_before,
    {{ utc_date('firings.occurred_at') }} as fired_date,
    firings.occurred_at as fired_at,
    firings._ingest_seq
from firings
left join next_runs using (tenant_id, trigger_event_id)
