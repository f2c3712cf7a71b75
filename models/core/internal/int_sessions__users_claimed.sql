{{
    config(
        materialized='incremental',
        meta={'replace': {'keys': ['tenant_id', 'session_id'], 'changed': 'changed_sessions'}}
    )
}}

with changed as (
    {{ changed_sessions() }}
),

-- What a device observed of a session bears the user to whom the session was bound there.
observations as (
    select
        s.tenant_id,
        s.session_id,
        coalesce(s.user_id, s._user_id) as user_id,
        coalesce(s.observed_at, s._received_at) as seen_at,
        greatest(s.updated_at, s.ended_at) as ended_at,
        zones.time_zone,
        changed._ingest_seq
    from {{ ref('stg_wire__sessions') }} as s
    inner join changed using (tenant_id, session_id)
    left join {{ ref('stg_wire__device_zones') }} as zones
        on s.tenant_id = zones.tenant_id
        and s._device_id = zones.device_id
        -- Comparisons, and not choices with NULL: those would try every row with every zone.
        and s._received_at > coalesce(zones.valid_after, timestamptz '1900-01-01 00:00:00+00')
        and s._received_at <= coalesce(zones.valid_to, timestamptz '9999-12-31 00:00:00+00')
),

-- A session that nobody described is known by its usage alone.
mentions as (
    {%- for relation in [
        'stg_wire__llm_turns', 'stg_wire__tool_calls', 'stg_wire__agent_runs', 'stg_wire__node_steps',
        'stg_wire__status_events', 'stg_wire__triggers',
    ] %}
    select
        rows_of_wire.tenant_id,
        rows_of_wire.session_id,
        rows_of_wire._user_id as user_id,
        rows_of_wire._received_at as seen_at,
        changed._ingest_seq
    from {{ ref(relation) }} as rows_of_wire
    inner join changed using (tenant_id, session_id)
    {%- if not loop.last %}
    union all
    {%- endif %}
    {%- endfor %}
),

last_turns as (
    select
        t.tenant_id,
        t.session_id,
        max(t.occurred_at) as last_turn_at
    from {{ ref('stg_wire__llm_turns') }} as t
    inner join changed using (tenant_id, session_id)
    where t.is_held is not true
    group by t.tenant_id, t.session_id
),

last_changes as (
    select
        tenant_id,
        session_id,
        max(ended_at) as ended_at
    from observations
    group by tenant_id, session_id
),

claims as (
    select
        observations.tenant_id,
        observations.session_id,
        observations.user_id,
        1 as claim_rank,
        min(observations.seen_at) as seen_at,
        coalesce(
            bool_or({{ path_holds('offsets.agreeing_zones', 'observations.time_zone') }}), false
        ) as is_in_zone,
        max(observations._ingest_seq) as _ingest_seq
    from observations
    left join {{ ref('stg_wire__session_offsets') }} as offsets using (tenant_id, session_id)
    where observations.user_id is not null
    group by observations.tenant_id, observations.session_id, observations.user_id
    union all
    select
        tenant_id,
        session_id,
        user_id,
        2 as claim_rank,
        min(seen_at) as seen_at,
        false as is_in_zone,
        max(_ingest_seq) as _ingest_seq
    from mentions
    where user_id is not null
    group by tenant_id, session_id, user_id
),

best_claims as (
    select * from claims
    qualify claim_rank = min(claim_rank) over (partition by tenant_id, session_id)
),

-- Whoever saw a session while it went on had it first: a copy is made of what is there. A device ships within a day of
-- a session's end, as a rule.
timed as (
    select
        claims.*,
        claims.seen_at <= greatest(last_turns.last_turn_at, last_changes.ended_at) as is_live,
        claims.seen_at <= greatest(last_turns.last_turn_at, last_changes.ended_at) + interval 1 day as is_soon
    from best_claims as claims
    left join last_turns using (tenant_id, session_id)
    left join last_changes using (tenant_id, session_id)
),

candidates as (
    select
        *,
        case
            when bool_or(is_live) over (partition by tenant_id, session_id) then coalesce(is_live, false)
            when bool_or(is_soon) over (partition by tenant_id, session_id) then coalesce(is_soon, false)
            else true
        end as is_candidate
    from timed
),

counted as (
    select
        tenant_id,
        session_id,
        count(*) as users,
        count(*) filter (where is_candidate) as candidates,
        min(user_id) filter (where is_candidate) as candidate_id,
        count(*) filter (where is_candidate and is_in_zone) as candidates_in_zone,
        min(user_id) filter (where is_candidate and is_in_zone) as candidate_in_zone_id,
        max(_ingest_seq) as _ingest_seq
    from candidates
    group by tenant_id, session_id
)

select
    tenant_id,
    session_id,
    case
        when candidates = 1 then candidate_id
        when candidates_in_zone = 1 then candidate_in_zone_id
    end as user_id,
    case
        when users = 1 then 'only'
        when candidates = 1 then 'seen_live'
        when candidates_in_zone = 1 then 'zone'
        else 'conflict'
    end as user_basis,
    _ingest_seq
from counted
