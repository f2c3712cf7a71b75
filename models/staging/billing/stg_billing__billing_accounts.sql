with source as (
    select * from {{ source('billing', 'billing_accounts') }}
),

knowledge as (
    select * from {{ ref('stg_billing__knowledge') }}
)

select
    billing_account_id,
    tenant_id,
    name,
    currency,
    reporting_timezone,
    charged_by,
    recorded_at
from source
where recorded_at <= (select known_at from knowledge)
