-- What the plans count: one row for each account and UTC month with usage.
with lines as (
    select tenant_id, billing_account_id, colony_id, quantity, billed_cost, usage_date
    from {{ ref('fct_rated_lines') }}
    union all
    -- Usage that was erased after its month was closed was counted: what was charged for it stays too.
    select tenant_id, billing_account_id, colony_id, consumed_quantity as quantity, billed_cost,
        charge_start_date as usage_date
    from {{ ref('stg_billing__closed_lines') }}
    where record_id = 'ERASED'
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

usage as (
    select
        billing_account_id,
        {{ month_of('usage_date') }} as billing_month,
        cast(sum(quantity) as bigint) as tokens,
        sum(billed_cost) as billed_cost
    from lines
    group by billing_account_id, {{ month_of('usage_date') }}
)

select
    usage.billing_account_id,
    usage.tokens,
    coalesce(colony_days.colony_days, 0) as colony_days,
    coalesce(usage.billed_cost, 0) as billed_cost,
    usage.billing_month
from usage
left join colony_days
    on usage.billing_account_id = colony_days.billing_account_id
    and usage.billing_month = colony_days.billing_month
