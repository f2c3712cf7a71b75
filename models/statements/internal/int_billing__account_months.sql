-- What the plans count: one row for each account and UTC month with usage.
with lines as (
    select * from {{ ref('int_billing__counted_lines') }}
),

colony_days as (
    select
        billing_account_id,
        {{ month_of('usage_date') }} as billing_month,
        count(distinct (tenant_id, colony_id, usage_date)) as colony_days
    from lines
    where colony_id is not null
    group by billing_account_id, {{ month_of('usage_date') }}
),

-- The currency that an account had last in a month: what was billed in another is on another invoice.
currencies as (
    select
        months.billing_account_id,
        months.billing_month,
        {{ latest('terms.currency', 'terms.valid_from') }} as currency
    from (select distinct billing_account_id, {{ month_of('usage_date') }} as billing_month from lines) as months
    inner join {{ ref('int_billing__account_terms') }} as terms
        on months.billing_account_id = terms.billing_account_id
        and {{ is_in_month('terms', 'months.billing_month') }}
    group by months.billing_account_id, months.billing_month
),

usage as (
    select
        lines.billing_account_id,
        {{ month_of('lines.usage_date') }} as billing_month,
        cast(sum(lines.quantity) as bigint) as tokens,
        sum(lines.billed_cost) filter (where lines.currency = currencies.currency) as billed_cost
    from lines
    left join currencies
        on lines.billing_account_id = currencies.billing_account_id
        and {{ month_of('lines.usage_date') }} = currencies.billing_month
    group by lines.billing_account_id, {{ month_of('lines.usage_date') }}
)

select
    usage.billing_account_id,
    usage.tokens,
    coalesce(colony_days.colony_days, 0) as colony_days,
    coalesce(usage.billed_cost, 0) as billed_cost,
    usage.billing_month
from usage
left join colony_days using (billing_account_id, billing_month)
