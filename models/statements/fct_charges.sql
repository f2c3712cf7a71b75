with plan_charges as (
    select * from {{ ref('int_billing__plan_charges') }}
),

ledger as (
    select * from {{ ref('fct_credit_ledger') }}
),

accounts as (
    select * from {{ ref('int_billing__account_terms') }}
),

charges as (
    select
        charge_id,
        billing_account_id,
        plan_item_id,
        user_id,
        charge_kind,
        item,
        null as currency,
        quantity,
        amount,
        billing_month
    from plan_charges
    union all
    -- One for a month and currency, whichever grants paid it: fct_credit_ledger says which.
    select
        {{ id_of(['billing_account_id', 'billing_month', "'drawdown'"]) }} as charge_id,
        billing_account_id,
        null as plan_item_id,
        null as user_id,
        'credit' as charge_kind,
        'credit' as item,
        currency,
        0 as quantity,
        sum(amount) as amount,
        billing_month
    from ledger
    where entry_kind = 'drawdown'
    group by billing_account_id, currency, billing_month
)

select
    -- The id of what an account's last currency of a month pays is that of earlier releases: closed statements name it.
    case
        when coalesce(charges.currency, accounts.currency) = accounts.currency then charges.charge_id
        else {{ id_of(['charges.charge_id', 'charges.currency']) }}
    end as charge_id,
    charges.billing_account_id,
    accounts.tenant_id,
    charges.plan_item_id,
    charges.user_id,
    charges.charge_kind,
    charges.item,
    coalesce(charges.currency, accounts.currency) as currency,
    cast(charges.quantity as bigint) as quantity,
    charges.amount,
    charges.billing_month
from charges
-- A charge is of a month, a plan's in the currency that its account had last in it. Of an account that has no day of the
-- month any more only what erased usage left on it is charged, by the terms before it or else after it.
inner join accounts
    on charges.billing_account_id = accounts.billing_account_id
    and (
        charges.currency is not null
        or {{ counts_usage('charges') }}
        or {{ is_in_month('accounts', 'charges.billing_month') }}
    )
qualify row_number() over (
    partition by charges.charge_id, charges.currency
    order by {{ nearest_terms('accounts', next_month('charges.billing_month')) }}
) = 1
