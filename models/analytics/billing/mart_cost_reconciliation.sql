{{
    config(
        materialized='incremental',
        meta={'replace': {'keys': ['tenant_id', 'usage_date'], 'changed': 'changed_rating_days'}}
    )
}}

with changed as (
    {{ changed_rating_days() }}
),

turns as (
    select
        t.*,
        changed._rating_seq as _changed_seq
    from {{ ref('fct_rated_turns') }} as t
    inner join changed using (tenant_id, usage_date)
)

select
    tenant_id,
    model,
    cast(count(*) as bigint) as turns,
    cast(count(*) filter (where rated_cost_usd is not null and reported_cost_usd is not null) as bigint)
        as compared_turns,
    cast(count(*) filter (where rated_cost_usd is null) as bigint) as unpriced_turns,
    cast(count(*) filter (where reported_cost_usd is null) as bigint) as unreported_turns,
    cast(sum(unpriced_tokens) as bigint) as unpriced_tokens,
    sum(rated_cost_usd) as rated_cost_usd,
    sum(reported_cost_usd) as reported_cost_usd,
    -- Of the turns that have both: the others would be a difference of nothing to something.
    cast(
        sum(rated_cost_usd - reported_cost_usd)
            filter (where rated_cost_usd is not null and reported_cost_usd is not null) as decimal(38, 20)
    ) as difference_usd,
    usage_date,
    max(_changed_seq) as _rating_seq
from turns
group by tenant_id, model, usage_date
