with source as (
    select * from {{ source('wire', 'sessions') }}
)

select
    source.record_id,
    source.tenant_id,
    {{ agent_runtime('source.agent_runtime') }} as agent_runtime,
    source.session_id,
    source.parent_session_id,
    source.forked_from_session_id,
    source.user_id,
    source.queen_name,
    source.agent_name,
    source.colony_name,
    source.profile_name,
    source.agent_type,
    source.project_id,
    source.entrypoint,
    source.channel,
    source.evidence,
    source.session_kind,
    source.status,
    source.phase,
    source.steps_executed,
    source.batch_size,
    source.batch_index,
    coalesce(source.is_copy, false) as is_copy,
    source.started_at,
    source.updated_at,
    source.ended_at,
    -- A start that was resolved without the writer's offset, or in a zone that the device has corrected, is not believed
    -- beside a better one.
    case
        when source.offset_basis is not null then 1
        when zones.time_zone = zones.current_time_zone then 2
        else 3
    end as clock_rank,
    source.observed_at,
    source.region,
    source._user_id,
    source._device_id,
    source._received_at
from source
left join {{ ref('stg_wire__device_zones') }} as zones
    on source.tenant_id = zones.tenant_id
    and source._device_id = zones.device_id
    -- Comparisons, and not choices with NULL: those would try every row with every zone.
    and source._received_at > coalesce(zones.valid_after, timestamptz '1900-01-01 00:00:00+00')
    and source._received_at <= coalesce(zones.valid_to, timestamptz '9999-12-31 00:00:00+00')
