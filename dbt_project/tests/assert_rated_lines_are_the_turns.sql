{# T2 and T3: the components of a turn partition its tokens, and every turn is in the rated lines once, with the cost
   that was reported for it. #}
{{ config(meta={'dagster': {'ref': {'name': 'fct_rated_lines'}}}) }}
with lines as (
    select
        tenant_id,
        record_id,
        sum(quantity) filter (where component <> 'output') as input_tokens,
        sum(quantity) filter (where component = 'output') as output_tokens,
        sum(reported_cost_usd) as reported_cost_usd,
        min(usage_date) as usage_date,
        count(*) filter (where component = 'output') as output_lines
    from {{ ref('fct_rated_lines') }}
    group by tenant_id, record_id
)

select
    turns.tenant_id,
    turns.turn_id,
    lines.record_id
from {{ ref('fct_llm_turns') }} as turns
full outer join lines
    on turns.tenant_id = lines.tenant_id
    and turns.turn_id = lines.record_id
where turns.turn_id is null
    or lines.record_id is null
    or coalesce(lines.input_tokens, 0) <> turns.input_tokens
    or lines.output_tokens <> turns.output_tokens
    or lines.output_lines <> 1
    or lines.reported_cost_usd is distinct from turns.reported_cost_usd
    or lines.usage_date <> turns.usage_date
