{{ config(materialized='view') }}

-- Months close for each account. One that the book does not name stands as the transitions of all accounts say; one that
-- never closed a month has nothing frozen, and nothing to correct.
with accounts as (
    select billing_account_id from {{ ref('dim_billing_accounts') }}
    union
    select billing_account_id from {{ ref('stg_billing__closed_lines') }}
    union
    select billing_account_id from {{ ref('stg_billing__periods') }}
    where billing_account_id is not null
),

own_periods as (
    select
        accounts.billing_account_id,
        periods.*
    exclude (billing_account_id)
    from accounts
    inner join {{ ref('stg_billing__periods') }} as periods
        on accounts.billing_account_id = periods.billing_account_id
        or (
            periods.billing_account_id is null
            and accounts.billing_account_id not in (
                select named.billing_account_id from {{ ref('stg_billing__periods') }} as named
                where named.billing_account_id is not null
            )
        )
)

select
    accounts.billing_account_id,
    coalesce(max(case when own_periods.is_frozen then own_periods.billing_period end), date '0001-01-01')
        as closed_through,
    coalesce(min(case when own_periods.status <> 'closed' then own_periods.billing_period end), date '0001-01-01')
        as correction_period
from accounts
left join own_periods using (billing_account_id)
group by accounts.billing_account_id
