with source as (
    select * from {{ source('billing', 'contract_rates') }}
),

knowledge as (
    select * from {{ ref('stg_billing__knowledge') }}
)

select
    contract_rate_id,
    billing_account_id,
    provider_name,
    model,
    component,
    note,
    factor,
    unit_price,
    valid_from,
    valid_to,
    recorded_at
from source
-- Of two rows of one id the one recorded last speaks.
where recorded_at <= (select known_at from knowledge)
qualify row_number() over (partition by contract_rate_id order by recorded_at desc) = 1
