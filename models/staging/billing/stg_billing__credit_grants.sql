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
    expires_on,
    recorded_at
from source
-- Of two rows of one id the one recorded last speaks.
where recorded_at <= (select known_at from knowledge)
qualify row_number() over (partition by credit_grant_id order by recorded_at desc) = 1
