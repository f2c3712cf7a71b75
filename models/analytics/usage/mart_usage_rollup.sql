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
    cast(sum(usage.turns) as bigint) as turns,
    cast(sum(usage.input_tokens) as bigint) as input_tokens,
    cast(sum(usage.cache_read_input_tokens) as bigint) as cache_read_input_tokens,
    cast(sum(usage.cache_write_input_tokens) as bigint) as cache_write_input_tokens,
    cast(sum(usage.output_tokens) as bigint) as output_tokens,
    cast(sum(usage.tool_calls) as bigint) as tool_calls,
    cast(sum(usage.tool_errors) as bigint) as tool_errors,
    cast(sum(usage.unreported_turns) as bigint) as unreported_turns,
    cast(sum(usage.unreported_tokens) as bigint) as unreported_tokens,
    cast(sum(usage.unpriced_turns) as bigint) as unpriced_turns,
    cast(sum(usage.unpriced_tokens) as bigint) as unpriced_tokens,
    sum(usage.reported_cost_usd) as reported_cost_usd,
    sum(usage.rated_cost_usd) as rated_cost_usd,
    sum(usage.rated_cost_low_usd) as rated_cost_low_usd,
    sum(usage.rated_cost_high_usd) as rated_cost_high_usd,
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
