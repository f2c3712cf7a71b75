{{
    config(
        materialized='incremental',
        meta={'replace': {'keys': ['tenant_id', 'session_id'], 'changed': 'changed_sessions'}}
    )
}}

with changed as (
    {{ changed_sessions() }}
),

observations as (
    select
        source.record_id,
        source.tenant_id,
        source.session_id,
        source.utc_offset_seconds,
        source.offset_basis,
        source.offset_observed_at,
        source._device_id as device_id,
        case source.offset_basis
            when 'session_created_at' then 1
            when 'run_created_at' then 2
            when 'tool_started_at' then 3
            when 'file_modified_at' then 4
        end as basis_rank,
        changed._ingest_seq
    from {{ source('wire', 'sessions') }} as source
    inner join changed using (tenant_id, session_id)
),

ranked as (
    select
        *,
        row_number() over (
            partition by tenant_id, session_id order by basis_rank, offset_observed_at, utc_offset_seconds, record_id
        ) as place
    from observations
    where basis_rank is not null
        and utc_offset_seconds is not null
        and offset_observed_at is not null
),

best as (
    select * from ranked
    where place = 1
),

device_zones as (
    select distinct
        observations.tenant_id,
        observations.session_id,
        zones.time_zone
    from observations
    inner join {{ ref('stg_wire__device_zones') }} as zones using (tenant_id, device_id)
),

-- Zones that had the same offset then: what was resolved in one of them is right, through changes of its offset too.
agreeing as (
    select
        best.tenant_id,
        best.session_id,
        {{ path_of_all('device_zones.time_zone') }} as agreeing_zones
    from best
    inner join device_zones using (tenant_id, session_id)
    where {{ zone_offset_micros('best.offset_observed_at', 'device_zones.time_zone') }} = best.utc_offset_seconds * 1000000
    group by best.tenant_id, best.session_id
),

-- An inner join of its own: as a condition of an outer join it would try every session with every zone.
agreeing_device_zones as (
    select
        device_zones.tenant_id,
        device_zones.session_id,
        device_zones.time_zone
    from device_zones
    inner join agreeing using (tenant_id, session_id)
    where {{ path_holds('agreeing.agreeing_zones', 'device_zones.time_zone') }}
),

-- Evidence of two places: the one that is best does not hold for all of the session.
differing as (
    select distinct
        ranked.tenant_id,
        ranked.session_id
    from ranked
    inner join best using (tenant_id, session_id)
    left join agreeing_device_zones as zones using (tenant_id, session_id)
    where case
            when zones.time_zone is null then ranked.utc_offset_seconds <> best.utc_offset_seconds
            else {{ zone_offset_micros('ranked.offset_observed_at', 'zones.time_zone') }}
                <> ranked.utc_offset_seconds * 1000000
        end
),

sessions as (
    select
        tenant_id,
        session_id,
        max(_ingest_seq) as _ingest_seq
    from observations
    group by tenant_id, session_id
)

select
    sessions.tenant_id,
    sessions.session_id,
    best.utc_offset_seconds,
    best.offset_basis,
    -- The time of a file is one coincidence, and copying changes it.
    best.offset_basis = 'file_modified_at' and agreeing.agreeing_zones is null
    or differing.session_id is not null as is_offset_doubtful,
    agreeing.agreeing_zones,
    sessions._ingest_seq
from sessions
left join best using (tenant_id, session_id)
left join agreeing using (tenant_id, session_id)
left join differing
    on sessions.tenant_id = differing.tenant_id
    and sessions.session_id = differing.session_id
