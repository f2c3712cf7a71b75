with source as (
    select * from {{ source('billing', 'plan_tiers') }}
),

knowledge as (
    select * from {{ ref('stg_billing__knowledge') }}
)

select
    plan_item_id,
    tier_from,
    unit_price,
    recorded_at
from source
where recorded_at <= (select known_at from knowledge)
