with source as (
    select * from {{ source('billing', 'cache_conventions') }}
),

knowledge as (
    select * from {{ ref('stg_billing__knowledge') }}
)

select
    cache_convention_id,
    tenant_id,
    model,
    gateway,
    convention,
    decided_by,
    reason,
    valid_from,
    valid_to,
    recorded_at
from source
where recorded_at <= (select known_at from knowledge)
