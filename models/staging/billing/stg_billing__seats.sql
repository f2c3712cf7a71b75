with source as (
    select * from {{ source('billing', 'seats') }}
),

knowledge as (
    select * from {{ ref('stg_billing__knowledge') }}
)

select
    seat_id,
    billing_account_id,
    user_id,
    valid_from,
    valid_to,
    recorded_at
from source
where recorded_at <= (select known_at from knowledge)
