{{ config(materialized='view') }}

-- A plan is bought for the usage of its month: the usage carries its cost, by its tokens, and the purchase none. Shares
-- are cut off after the fifteenth digit as differences of running shares, so they add up to what was paid.
with months_bought as (
    select
        billing_account_id,
        currency,
        incurred_period,
        cast(sum(billed_cost) filter (where charge_category = 'Purchase') as decimal(28, 15)) as bought,
        cast(sum(consumed_quantity) filter (where is_covered) as hugeint) as tokens
    from {{ ref('int_billing__open_lines') }}
    group by billing_account_id, currency, incurred_period
    having sum(billed_cost) filter (where charge_category = 'Purchase') <> 0
        and sum(consumed_quantity) filter (where is_covered) > 0
),

covered as (
    select
        lines.tenant_id,
        lines.line_id,
        lines.billing_account_id,
        lines.is_covered,
        lines.consumed_quantity,
        months_bought.bought,
        months_bought.tokens,
        cast(
            coalesce(sum(lines.consumed_quantity) filter (where lines.is_covered) over so_far, 0) as hugeint
        ) as tokens_so_far
    from {{ ref('int_billing__open_lines') }} as lines
    inner join months_bought using (billing_account_id, currency, incurred_period)
    where lines.is_covered or lines.charge_category = 'Purchase'
    window
        so_far as (
            partition by lines.billing_account_id, lines.currency, lines.incurred_period
            order by lines.charge_start_date, lines.tenant_id, lines.line_id
            rows between unbounded preceding and current row
        )
),

originals as (
    select
        lines.* exclude (is_covered),
        case
            when covered.line_id is null then lines.billed_cost
            when covered.is_covered then {{ running_share('bought', 'tokens_so_far', 'tokens') }}
                - {{ running_share('bought', 'tokens_so_far - cast(covered.consumed_quantity as hugeint)', 'tokens') }}
            else 0
        end as effective_cost,
        cast(null as date) as original_period,
        lines.incurred_period as billing_period,
        'original' as line_kind,
        cast(null as varchar) as cause
    from {{ ref('int_billing__open_lines') }} as lines
    left join covered using (tenant_id, line_id, billing_account_id)
)

select {{ pending_line_columns() | join(', ') }}
from originals
