with grants as (
    select * from {{ ref('stg_billing__credit_grants') }}
),

usage as (
    select * from {{ ref('int_billing__account_months') }}
),

plan_charges as (
    select * from {{ ref('int_billing__plan_charges') }}
),

accounts as (
    select * from {{ ref('dim_billing_accounts') }}
),

due as (
    select billing_account_id, billing_month, billed_cost as amount
    from usage
    union all
    select billing_account_id, billing_month, amount
    from plan_charges
),

movements as (
    select
        billing_account_id,
        {{ month_of('granted_on') }} as billing_month,
        amount as granted,
        cast(0 as decimal(38, 15)) as charged
    from grants
    union all
    select
        billing_account_id,
        billing_month,
        cast(0 as decimal(38, 15)) as granted,
        amount as charged
    from due
),

months as (
    select
        billing_account_id,
        billing_month,
        sum(granted) as granted,
        sum(charged) as charged
    from movements
    where billing_account_id in (select billing_account_id from grants)
    group by billing_account_id, billing_month
),

running as (
    select
        *,
        sum(granted - charged) over so_far as net
    from months
    window so_far as (partition by billing_account_id order by billing_month)
),

-- A balance that never falls below zero is the running sum less its lowest point so far, if that was below zero.
balances as (
    select
        *,
        net - least(cast(0 as decimal(38, 15)), min(net) over so_far) as balance
    from running
    window so_far as (partition by billing_account_id order by billing_month)
),

drawdowns as (
    select
        billing_account_id,
        billing_month,
        balance,
        coalesce(lag(balance) over (partition by billing_account_id order by billing_month), 0)
        + granted - balance as drawn
    from balances
),

entries as (
    select
        credit_grant_id as credit_entry_id,
        billing_account_id,
        'grant' as entry_kind,
        reason,
        granted_by as created_by,
        amount,
        granted_on as entry_date,
        {{ month_of('granted_on') }} as billing_month,
        0 as place
    from grants
    union all
    select
        {{ id_of(['billing_account_id', 'billing_month', "'drawdown'"]) }} as credit_entry_id,
        billing_account_id,
        'drawdown' as entry_kind,
        'charges of the month' as reason,
        'rating' as created_by,
        -drawn as amount,
        {{ next_month('billing_month') }} as entry_date,
        billing_month,
        1 as place
    from drawdowns
    where drawn > 0
)

select
    entries.credit_entry_id,
    entries.billing_account_id,
    entries.entry_kind,
    entries.reason,
    entries.created_by,
    accounts.currency,
    cast(entries.amount as decimal(38, 15)) as amount,
    cast(sum(entries.amount) over (
        partition by entries.billing_account_id
        order by entries.billing_month, entries.place, entries.entry_date, entries.credit_entry_id
    ) as decimal(38, 15)) as balance,
    entries.entry_date,
    entries.billing_month
from entries
inner join accounts
    on entries.billing_account_id = accounts.billing_account_id
