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
-- Of two rows of one id the one recorded last speaks.
where recorded_at <= (select known_at from knowledge)
qualify row_number() over (partition by seat_id, valid_from order by recorded_at desc) = 1
