{{ config(materialized='view') }}

select
    tenant_id,
    queen_name,
    session_id,
    colony_id,
    user_id,
    model,
    {{ usage_sums('usage', without=['tool_errors']) }},
    usage_date
from {{ ref('mart_usage_rollup') }} as usage
where queen_name is not null
group by tenant_id, queen_name, session_id, colony_id, user_id, model, usage_date
