{{ config(materialized='view') }}

-- The book's price, whatever was agreed: what the source reported is a list price too.
select
    record_id as turn_id,
    tenant_id,
    user_id,
    session_id,
    colony_id,
    model,
    cast(sum(quantity) as bigint) as tokens,
    cast(coalesce(sum(quantity) filter (where pricing_unit_price is null), 0) as bigint) as unpriced_tokens,
    cast(
        case
            when bool_and(quantity = 0 or (pricing_unit_price is not null and pricing_currency = 'USD'))
                then sum({{ line_amount('quantity', 'coalesce(pricing_unit_price, 0)') }})
        end as decimal(38, 20)
    ) as rated_cost_usd,
    cast(max(reported_cost_usd) as decimal(38, 20)) as reported_cost_usd,
    min(usage_date) as usage_date,
    max(_rating_seq) as _rating_seq
from {{ ref('fct_rated_lines') }}
group by record_id, tenant_id, user_id, session_id, colony_id, model
