with sessions as (
    select * from {{ ref('mart_session_usage') }}
),

colonies as (
    select * from {{ ref('dim_colonies') }}
)

select
    colonies.tenant_id,
    colonies.colony_id,
    colonies.colony_name,
    colonies.queen_name,
    cast(count(sessions.session_id) as bigint) as sessions,
    cast(coalesce(sum(sessions.turns), 0) as bigint) as turns,
    cast(coalesce(sum(sessions.input_tokens), 0) as bigint) as input_tokens,
    cast(coalesce(sum(sessions.cache_read_input_tokens), 0) as bigint) as cache_read_input_tokens,
    cast(coalesce(sum(sessions.cache_write_input_tokens), 0) as bigint) as cache_write_input_tokens,
    cast(coalesce(sum(sessions.output_tokens), 0) as bigint) as output_tokens,
    cast(coalesce(sum(sessions.tool_calls), 0) as bigint) as tool_calls,
    cast(coalesce(sum(sessions.unreported_turns), 0) as bigint) as unreported_turns,
    cast(coalesce(sum(sessions.unpriced_turns), 0) as bigint) as unpriced_turns,
    cast(coalesce(sum(sessions.unpriced_tokens), 0) as bigint) as unpriced_tokens,
    cast(coalesce(sum(sessions.wasted_turns), 0) as bigint) as wasted_turns,
    cast(coalesce(sum(sessions.wasted_tokens), 0) as bigint) as wasted_tokens,
    cast(sum(sessions.inherited_input_tokens) as bigint) as inherited_input_tokens,
    cast(
        coalesce(sum(sessions.input_tokens) filter (where sessions.session_id = colonies.colony_id), 0) as bigint
    ) as own_input_tokens,
    cast(
        coalesce(sum(sessions.output_tokens) filter (where sessions.session_id = colonies.colony_id), 0) as bigint
    ) as own_output_tokens,
    sum(sessions.reported_cost_usd) as reported_cost_usd,
    sum(sessions.rated_cost_usd) as rated_cost_usd,
    sum(sessions.rated_cost_low_usd) as rated_cost_low_usd,
    sum(sessions.rated_cost_high_usd) as rated_cost_high_usd,
    sum(sessions.reported_cost_usd) filter (where sessions.session_id = colonies.colony_id) as own_cost_usd,
    sum(sessions.wasted_cost_usd) as wasted_cost_usd,
    min(sessions.first_turn_at) as first_turn_at,
    max(sessions.last_turn_at) as last_turn_at
from colonies
left join sessions using (tenant_id, colony_id)
group by colonies.tenant_id, colonies.colony_id, colonies.colony_name, colonies.queen_name
