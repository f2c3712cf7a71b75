with source as (
    select * from {{ source('billing', 'model_aliases') }}
),

knowledge as (
    select * from {{ ref('stg_billing__knowledge') }}
)

select
    alias_id,
    model,
    provider_name,
    price_model,
    note,
    valid_from,
    recorded_at
from source
where recorded_at <= (select known_at from knowledge)
