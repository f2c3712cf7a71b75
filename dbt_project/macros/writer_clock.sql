{# Local times of the source, resolved again with what is known of the writer's UTC offset now. A device resolved them
   with what it knew when it read them: its own zone, unless an epoch time beside a local one told the offset
   (`offset_basis`). Evidence of the session that came later, and a corrected zone of the device, apply here.

   A row of the first release has no offset: its local time comes back from the instant and the zone that its device
   reported when the row arrived. #}

{# The wire's rows with `occurred_at`, `time_basis` and `is_time_ambiguous` as they are known now. A model selects from
   `resolved`, and no other column of those names. #}
{% macro resolved_times(table) -%}
with source as (
    select * from {{ source('wire', table) }}
),

-- What decides: `sent` keeps the device's instant, `session` takes the offset that the session's files tell, `zone` the
-- zone that the device reports now.
ruled as (
    select
        source.*,
        offsets.utc_offset_seconds as session_offset_seconds,
        offsets.offset_basis as session_offset_basis,
        offsets.is_offset_doubtful,
        zones.time_zone as zone_then,
        zones.current_time_zone as zone_now,
        case
            when (source.time_basis is distinct from 'local_resolved') or source.occurred_at is null then 'sent'
            when coalesce(source.offset_basis, 'device_zone') <> 'device_zone' then 'sent'
            when source.utc_offset_seconds is null and zones.time_zone is null then 'sent'
            when {{ path_holds('offsets.agreeing_zones', 'zones.time_zone') }} then 'agrees'
            when offsets.utc_offset_seconds is not null then 'session'
            when zones.time_zone <> zones.current_time_zone then 'zone'
            else 'sent'
        end as clock_rule
    from source
    left join {{ ref('stg_wire__session_offsets') }} as offsets using (tenant_id, session_id)
    left join {{ ref('stg_wire__device_zones') }} as zones
        on source.tenant_id = zones.tenant_id
        and source._device_id = zones.device_id
        -- Comparisons, and not choices with NULL: those would try every row with every zone.
        and source._received_at > coalesce(zones.valid_after, timestamptz '1900-01-01 00:00:00+00')
        and source._received_at <= coalesce(zones.valid_to, timestamptz '9999-12-31 00:00:00+00')
),

-- The wall clock of the writer, in microseconds as if it were UTC.
written as (
    select
        *,
        case
            when clock_rule not in ('session', 'zone') then null
            when utc_offset_seconds is not null then {{ to_micros('occurred_at') }} + utc_offset_seconds * 1000000
            else {{ wall_clock_micros('occurred_at', 'zone_then') }}
        end as written_us
    from ruled
),

resolved as (
    select
        {{ all_but(['occurred_at', 'time_basis', 'is_time_ambiguous']) }},
        case clock_rule
            when 'session' then {{ from_micros('written_us - session_offset_seconds * 1000000') }}
            when 'zone' then {{ instant_of_wall_clock('written_us', 'zone_now') }}
            else occurred_at
        end as occurred_at,
        case
            when clock_rule in ('session', 'agrees') then 'offset_from_' || session_offset_basis
            when time_basis = 'local_resolved' and offset_basis <> 'device_zone' then 'offset_from_' || offset_basis
            else time_basis
        end as time_basis,
        case
            -- Nothing but the zone tells the offset, and the device has named two.
            when clock_rule = 'zone' then true
            when clock_rule in ('session', 'agrees') and is_offset_doubtful then true
            else is_time_ambiguous
        end as is_time_ambiguous
    from written
)
{%- endmacro %}

{# The UTC offset of a zone at an instant, in microseconds. #}
{% macro zone_offset_micros(instant, zone) -%}
    ({{ wall_clock_micros(instant, zone) }} - {{ to_micros(instant) }})
{%- endmacro %}

{# The instant that a zone's wall clock shows: the earlier of two, and moved on by the gap where there is none. A change
   of the zone's offset lies within a day of the wall clock or does not matter. #}
{% macro instant_of_wall_clock(written_us, zone) -%}
    {%- set before = written_us ~ ' - ' ~ zone_offset_micros(from_micros(written_us ~ ' - 86400000000'), zone) -%}
    {%- set after = written_us ~ ' - ' ~ zone_offset_micros(from_micros(written_us ~ ' + 86400000000'), zone) -%}
    {{ from_micros(
        'case when ' ~ wall_clock_micros(from_micros(before), zone) ~ ' = ' ~ written_us ~ ' then ' ~ before
        ~ ' when ' ~ wall_clock_micros(from_micros(after), zone) ~ ' = ' ~ written_us ~ ' then ' ~ after
        ~ ' else ' ~ before ~ ' end'
    ) }}
{%- endmacro %}
