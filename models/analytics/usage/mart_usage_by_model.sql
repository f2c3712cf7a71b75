{{ config(materialized='view') }}

select
    tenant_id,
    session_id,
    agent_runtime,
    model,
    {{ usage_sums('usage', without=['tool_errors']) }},
    usage_date
from {{ ref('mart_usage_rollup') }} as usage
group by tenant_id, session_id, agent_runtime, model, usage_date
