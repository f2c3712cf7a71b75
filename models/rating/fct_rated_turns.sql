{{
    config(
        materialized='incremental',
        meta={'replace': {'keys': ['tenant_id', 'usage_date'], 'changed': 'changed_rating_days'}}
    )
}}

with changed as (
    {{ changed_rating_days() }}
),

-- The book's price, whatever was agreed: what the source reported is a list price too. A turn is priced as a whole or
-- not at all, so that a sum of turns and the tokens it leaves out are all there is.
turns as (
    select
        lines.record_id,
        lines.tenant_id,
        lines.user_id,
        lines.session_id,
        lines.colony_id,
        -- As the source says it: usage is counted by that.
        case when lines.model_basis in ('reported', 'alias') then lines.model else 'unknown' end as model,
        sum(lines.quantity) as tokens,
        bool_and(
            lines.quantity = 0 or (lines.pricing_unit_price is not null and lines.pricing_currency = 'USD')
        ) and bool_or(lines.pricing_unit_price is not null and lines.pricing_currency = 'USD') as is_priced,
        sum({{ line_amount('lines.quantity', 'lines.pricing_unit_price') }}) as list_cost,
        sum(lines.low_list_cost) as low_list_cost,
        sum(lines.high_list_cost) as high_list_cost,
        max(lines.reported_cost_usd) as reported_cost_usd,
        lines.usage_date,
        max(changed._rating_seq) as _rating_seq
    from {{ ref('fct_rated_lines') }} as lines
    inner join changed using (tenant_id, usage_date)
    group by
        lines.record_id, lines.tenant_id, lines.user_id, lines.session_id, lines.colony_id, lines.model,
        lines.model_basis, lines.usage_date
)

select
    record_id as turn_id,
    tenant_id,
    user_id,
    session_id,
    colony_id,
    model,
    cast(tokens as bigint) as tokens,
    cast(case when is_priced then 0 else tokens end as bigint) as unpriced_tokens,
    cast(case when is_priced then list_cost end as decimal(38, 20)) as rated_cost_usd,
    cast(case when is_priced then low_list_cost end as decimal(38, 20)) as rated_cost_low_usd,
    cast(case when is_priced then high_list_cost end as decimal(38, 20)) as rated_cost_high_usd,
    cast(reported_cost_usd as decimal(38, 20)) as reported_cost_usd,
    usage_date,
    _rating_seq
from turns
