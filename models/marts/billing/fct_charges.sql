with plan_charges as (
    select * from {{ ref('int_billing__plan_charges') }}
),

ledger as (
    select * from {{ ref('fct_credit_ledger') }}
),

accounts as (
    select * from {{ ref('dim_billing_accounts') }}
),

charges as (
    select
        charge_id,
        billing_account_id,
        plan_item_id,
        user_id,
        charge_kind,
        item,
        quantity,
        amount,
        billing_month
    from plan_charges
    union all
    select
        credit_entry_id as charge_id,
        billing_account_id,
        null as plan_item_id,
        null as user_id,
        'credit' as charge_kind,
        'credit' as item,
        0 as quantity,
        amount,
        billing_month
    from ledger
    where entry_kind = 'drawdown'
)

select
    charges.charge_id,
    charges.billing_account_id,
    accounts.tenant_id,
    charges.plan_item_id,
    charges.user_id,
    charges.charge_kind,
    charges.item,
    accounts.currency,
    cast(charges.quantity as bigint) as quantity,
    charges.amount,
    charges.billing_month
from charges
inner join accounts
    on charges.billing_account_id = accounts.billing_account_id
