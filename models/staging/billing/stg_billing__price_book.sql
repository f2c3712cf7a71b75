with source as (
    select * from {{ source('billing', 'price_book') }}
),

knowledge as (
    select * from {{ ref('stg_billing__knowledge') }}
)

select
    price_id,
    sheet_id,
    provider_name,
    model,
    component,
    service_tier,
    currency,
    unit,
    source,
    source_version,
    source_sha256,
    note,
    context_tier_min,
    dow_mask,
    tod_from,
    tod_to,
    unit_quantity,
    unit_price,
    is_batch,
    is_free,
    valid_from,
    valid_to,
    recorded_at
from source
where recorded_at <= (select known_at from knowledge)
