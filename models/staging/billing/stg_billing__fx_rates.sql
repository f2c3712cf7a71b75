with source as (
    select * from {{ source('billing', 'fx_rates') }}
),

knowledge as (
    select * from {{ ref('stg_billing__knowledge') }}
)

select
    fx_rate_id,
    currency_from,
    currency_to,
    source,
    rate,
    valid_from,
    recorded_at
from source
where recorded_at <= (select known_at from knowledge)
