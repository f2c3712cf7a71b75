{{ config(materialized='view') }}

with usage as (
    select * from {{ ref('agg_usage_quarter_hourly') }}
),

sessions as (
    select * from {{ ref('dim_sessions') }}
)

select
    usage.tenant_id,
    usage.session_id,
    usage.user_id,
    usage.colony_id,
    sessions.queen_name,
    usage.agent_kind,
    usage.agent_runtime,
    usage.model,
    usage.waste_kind,
    {{ usage_sums('usage') }},
    usage.usage_date,
    usage.zone_date
from usage
left join sessions using (tenant_id, session_id)
group by
    usage.tenant_id,
    usage.session_id,
    usage.user_id,
    usage.colony_id,
    sessions.queen_name,
    usage.agent_kind,
    usage.agent_runtime,
    usage.model,
    usage.waste_kind,
    usage.usage_date,
    usage.zone_date
