with source as (
    select * from {{ source('billing', 'credit_grants') }}
),

knowledge as (
    select * from {{ ref('stg_billing__knowledge') }}
)

select
    credit_grant_id,
    billing_account_id,
    reason,
    granted_by,
    amount,
    granted_on,
    recorded_at
from source
where recorded_at <= (select known_at from knowledge)
