{{ config(materialized='view') }}

with observations as (
    select
        *,
        row_number() over (
            partition by tenant_id, agent_runtime, kind, number, requested_at
            order by observation desc, observed_at desc, record_id
        ) as place
    from {{ ref('stg_wire__requests') }}
)

select
    observations.record_id as request_id,
    observations.tenant_id,
    observations.agent_runtime,
    observations.agent_name,
    observations.asked_name,
    observations.kind,
    observations.purpose,
    observations.status,
    observations.error_class,
    observations.number as request_number,
    observations.reply_to_number,
    observations.attempts,
    coalesce(observations.is_to_operator, false) as is_to_operator,
    coalesce(observations.is_broadcast, false) as is_broadcast,
    case
        when observations.resolved_at >= observations.requested_at
            then {{ seconds_between('observations.requested_at', 'observations.resolved_at') }}
    end as wait_seconds,
    case
        when observations.status = 'open' and known.known_as_of >= observations.requested_at
            then {{ seconds_between('observations.requested_at', 'known.known_as_of') }}
    end as age_seconds,
    coalesce(observations.status = 'open' and observations.due_at < known.known_as_of, false) as is_overdue,
    observations.requested_at,
    observations.due_at,
    observations.resolved_at,
    observations.observed_at
from observations
left join {{ ref('int_tenants__known_as_of') }} as known using (tenant_id)
where observations.place = 1
