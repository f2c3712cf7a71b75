with events as (
    select * from {{ ref('stg_wire__triggers') }}
),

firings as (
    select
        tenant_id,
        session_id,
        trigger_id,
        count(*) as fires,
        count(run_key) as runs_started,
        cast(sum(missed_before) as bigint) as missed_between,
        max(fired_at) as last_fired_at
    from {{ ref('fct_trigger_firings') }}
    group by tenant_id, session_id, trigger_id
),

lives as (
    select
        tenant_id,
        session_id,
        trigger_id,
        {{ latest('trigger_type', pair('occurred_at', 'trigger_event_id')) }} as trigger_type,
        {{ latest('interval_seconds', pair('occurred_at', 'trigger_event_id')) }} as interval_seconds,
        {{ latest('kind', pair('occurred_at', 'trigger_event_id')) }}
            filter (where kind in ('available', 'activated', 'deactivated', 'removed')) as life_kind,
        count(*) filter (where kind = 'updated') as updates,
        min(occurred_at) as first_seen_at,
        max(occurred_at) filter (where kind = 'activated') as activated_at,
        max(occurred_at) filter (where kind = 'deactivated') as deactivated_at,
        max(occurred_at) filter (where kind = 'removed') as removed_at
    from events
    group by tenant_id, session_id, trigger_id
),

devices as (
    select
        sessions.tenant_id,
        sessions.session_id,
        heartbeats.last_received_at as known_as_of
    from {{ ref('int_sessions__observations_merged') }} as sessions
    inner join {{ ref('int_devices__heartbeats') }} as heartbeats using (tenant_id, device_id)
),

-- Fires once without ever having been activated: it was activated before anybody looked.
judged as (
    select
        lives.*,
        case
            when lives.life_kind = 'removed' then 'removed'
            when lives.life_kind = 'deactivated' then 'inactive'
            when lives.life_kind = 'activated' or firings.fires > 0 then 'active'
            else 'available'
        end as state,
        coalesce(firings.fires, 0) as fires,
        coalesce(firings.runs_started, 0) as runs_started,
        coalesce(firings.missed_between, 0) as missed_between,
        firings.last_fired_at,
        devices.known_as_of
    from lives
    left join devices using (tenant_id, session_id)
    left join firings
        on lives.tenant_id = firings.tenant_id
        and lives.session_id = firings.session_id
        and lives.trigger_id is not distinct from firings.trigger_id
),

due as (
    select
        *,
        case
            when state = 'active' and interval_seconds > 0
                then {{ seconds_after('coalesce(greatest(last_fired_at, activated_at), last_fired_at, activated_at)', 'interval_seconds') }}
        end as next_due_at
    from judged
)

select
    tenant_id,
    session_id,
    trigger_id,
    trigger_type,
    state,
    interval_seconds,
    updates,
    fires,
    runs_started,
    missed_between,
    -- Due by the last word of its device, and not fired.
    case
        when next_due_at is null then 0
        when {{ seconds_between('next_due_at', 'known_as_of') }} < 0 then 0
        else 1 + {{ bounded_count('floor(' ~ share(seconds_between('next_due_at', 'known_as_of'), 'interval_seconds') ~ ')') }}
    end as missed_since,
    coalesce({{ seconds_between('next_due_at', 'known_as_of') }} >= 0, false) as is_overdue,
    first_seen_at,
    activated_at,
    deactivated_at,
    removed_at,
    last_fired_at,
    next_due_at,
    known_as_of
from due
