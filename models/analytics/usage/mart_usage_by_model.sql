{{ config(materialized='view') }}

select
    tenant_id,
    session_id,
    agent_runtime,
    model,
    cast(sum(turns) as bigint) as turns,
    cast(sum(input_tokens) as bigint) as input_tokens,
    cast(sum(cache_read_input_tokens) as bigint) as cache_read_input_tokens,
    cast(sum(cache_write_input_tokens) as bigint) as cache_write_input_tokens,
    cast(sum(output_tokens) as bigint) as output_tokens,
    cast(sum(tool_calls) as bigint) as tool_calls,
    cast(sum(unreported_turns) as bigint) as unreported_turns,
    cast(sum(unreported_tokens) as bigint) as unreported_tokens,
    cast(sum(unpriced_turns) as bigint) as unpriced_turns,
    cast(sum(unpriced_tokens) as bigint) as unpriced_tokens,
    sum(reported_cost_usd) as reported_cost_usd,
    sum(rated_cost_usd) as rated_cost_usd,
    sum(rated_cost_low_usd) as rated_cost_low_usd,
    sum(rated_cost_high_usd) as rated_cost_high_usd,
    usage_date
from {{ ref('mart_usage_rollup') }}
group by tenant_id, session_id, agent_runtime, model, usage_date
