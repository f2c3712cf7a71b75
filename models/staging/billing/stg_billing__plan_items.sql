with source as (
    select * from {{ source('billing', 'plan_items') }}
),

knowledge as (
    select * from {{ ref('stg_billing__knowledge') }}
)

select
    plan_item_id,
    billing_account_id,
    item,
    pricing,
    note,
    included_units,
    package_size,
    unit_price,
    commit_amount,
    valid_from,
    valid_to,
    recorded_at
from source
where recorded_at <= (select known_at from knowledge)
