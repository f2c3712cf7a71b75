with source as (
    select * from {{ source('billing', 'settlements') }}
),

knowledge as (
    select * from {{ ref('stg_billing__knowledge') }}
)

select
    settlement_id,
    billing_account_id,
    kind,
    model,
    reason,
    recorded_by,
    billing_period,
    recorded_at
from source
where recorded_at <= (select known_at from knowledge)
