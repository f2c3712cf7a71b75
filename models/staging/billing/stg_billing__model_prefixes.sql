with source as (
    select * from {{ source('billing', 'model_prefixes') }}
),

knowledge as (
    select * from {{ ref('stg_billing__knowledge') }}
)

select
    prefix,
    provider_name,
    recorded_at
from source
where recorded_at <= (select known_at from knowledge)
