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
    -- Rows of an earlier version say nothing of time: they are true of all of it.
    coalesce(valid_from, date '0001-01-01') as valid_from,
    valid_to,
    recorded_at
from source
where recorded_at <= (select known_at from knowledge)
