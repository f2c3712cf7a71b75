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
    where colony_id <> 'ERASED'
    group by billing_account_id, {{ month_of('usage_date') }}
),

-- Erased colonies share one name. How many there were is what the closed plan counted beyond those that have theirs.
erased_months as (
    select
        billing_account_id,
        {{ month_of('usage_date') }} as billing_month,
        count(distinct (tenant_id, usage_date)) as colony_days
    from lines
    where colony_id = 'ERASED'
    group by billing_account_id, {{ month_of('usage_date') }}
),

closed_counts as (
    select
        billing_account_id,
        charge_start_date as billing_month,
        cast({{ latest('pricing_quantity', '(seal_seq, pricing_quantity)') }} as bigint) as colony_days
    from {{ ref('stg_billing__closed_lines') }}
    where charge_category = 'Purchase' and component = 'colony_day' and line_kind <> 'reversal'
    group by billing_account_id, charge_start_date
),

named_when_closed as (
    select
        days.billing_account_id,
        erased_months.billing_month,
        count(distinct (days.tenant_id, days.colony_id, days.usage_date)) as colony_days
    from (
        select tenant_id, billing_account_id, colony_id, charge_start_date as usage_date
        from {{ ref('stg_billing__closed_lines') }}
        where charge_category = 'Usage' and colony_id <> 'ERASED'
        group by tenant_id, billing_account_id, colony_id, charge_start_date
        having sum(case when line_kind = 'reversal' then -1 else 1 end) > 0
        union all
        -- Counted, and in no closed statement: it has no price.
        select tenant_id, billing_account_id, colony_id, usage_date
        from lines
        where billed_cost is null and colony_id <> 'ERASED'
    ) as days
    inner join erased_months
        on days.billing_account_id = erased_months.billing_account_id
        and {{ month_of('days.usage_date') }} = erased_months.billing_month
    group by days.billing_account_id, erased_months.billing_month
),

erased_colony_days as (
    select
        erased_months.billing_account_id,
        erased_months.billing_month,
        case
            when closed_counts.colony_days is null then erased_months.colony_days
            else greatest(closed_counts.colony_days - coalesce(named_when_closed.colony_days, 0), 0)
        end as colony_days
    from erased_months
    left join closed_counts using (billing_account_id, billing_month)
    left join named_when_closed using (billing_account_id, billing_month)
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
        and {{ next_month('months.billing_month') }} > terms.valid_from
        and (terms.valid_to is null or months.billing_month < terms.valid_to)
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
    coalesce(colony_days.colony_days, 0) + coalesce(erased_colony_days.colony_days, 0) as colony_days,
    coalesce(usage.billed_cost, 0) as billed_cost,
    usage.billing_month
from usage
left join colony_days using (billing_account_id, billing_month)
left join erased_colony_days using (billing_account_id, billing_month)
