with periods as (
    select * from {{ ref('stg_billing__periods') }}
)

select
    '{{ var("invoice_issuer") }}' as invoice_issuer,
    billing_account_id,
    status,
    case when status = 'closed' then 'Closed' else 'Open' end as focus_status,
    bookings,
    is_frozen,
    billing_period,
    created_at,
    updated_at
from periods
