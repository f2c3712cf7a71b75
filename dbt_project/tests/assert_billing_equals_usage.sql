-- The four token classes add up to the day's tokens, the reported cost to the day's cost: nothing twice, nothing lost.
-- What was billed for usage that is erased stays in the bill; the usage it was made of is not there any more.
{{ config(meta={'dagster': {'ref': {'name': 'mart_daily_billing'}}}) }}

with billed as (
    select
        tenant_id,
        usage_date,
        sum(quantity) filter (where unit = 'tokens') as tokens,
        sum(quantity) filter (where unit = 'usd') as reported_cost_usd,
        sum(unreported_turns) as unreported_turns
    from {{ ref('mart_daily_billing') }}
    where user_id <> 'ERASED'
    group by tenant_id, usage_date
),

used as (
    select
        tenant_id,
        usage_date,
        input_tokens + output_tokens as tokens,
        reported_cost_usd,
        unreported_turns
    from {{ ref('agg_usage_tenant_daily') }}
    where turns > 0
)

select
    coalesce(billed.tenant_id, used.tenant_id) as tenant_id,
    coalesce(billed.usage_date, used.usage_date) as usage_date
from billed
full outer join used
    on billed.tenant_id = used.tenant_id
    and billed.usage_date = used.usage_date
where billed.tokens is distinct from used.tokens
    or billed.reported_cost_usd is distinct from used.reported_cost_usd
    or billed.unreported_turns is distinct from used.unreported_turns
