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
-- Of two rows of one id the one recorded last speaks.
where recorded_at <= (select known_at from knowledge)
qualify row_number() over (partition by plan_item_id, tier_from order by recorded_at desc) = 1
