with source as (
    select * from {{ source('ledger', 'periods') }}
)

select
    billing_account_id,
    status,
    bookings,
    is_frozen,
    billing_period,
    created_at,
    updated_at
from source
