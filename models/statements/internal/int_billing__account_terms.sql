{{ config(materialized='view') }}

-- What an account is called and charged in, from a day on, whichever of its tenants it was said of: the tenant that was
-- first by name stands for it where a row needs one.
with accounts as (
    select * from {{ ref('dim_billing_accounts') }}
),

edges as (
    select billing_account_id, valid_from as edge from accounts
    union
    select billing_account_id, valid_to as edge from accounts
    where valid_to is not null
),

spans as (
    select
        billing_account_id,
        edge as valid_from,
        lead(edge) over (partition by billing_account_id order by edge) as valid_to
    from edges
)

select
    spans.billing_account_id,
    accounts.tenant_id,
    accounts.name,
    accounts.currency,
    accounts.charged_by,
    spans.valid_from,
    spans.valid_to
from spans
inner join accounts
    on spans.billing_account_id = accounts.billing_account_id
    and spans.valid_from >= accounts.valid_from
    and (accounts.valid_to is null or spans.valid_from < accounts.valid_to)
qualify row_number() over (
    partition by spans.billing_account_id, spans.valid_from order by accounts.tenant_id
) = 1
