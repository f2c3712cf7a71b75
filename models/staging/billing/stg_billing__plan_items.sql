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
-- Of two rows of one id the one recorded last speaks.
where recorded_at <= (select known_at from knowledge)
qualify row_number() over (partition by plan_item_id order by recorded_at desc) = 1
