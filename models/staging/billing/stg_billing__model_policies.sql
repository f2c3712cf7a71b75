with source as (
    select * from {{ source('billing', 'model_policies') }}
),

knowledge as (
    select * from {{ ref('stg_billing__knowledge') }}
)

select
    tenant_id,
    rule,
    default_model,
    valid_from,
    valid_to,
    recorded_at
from source
where recorded_at <= (select known_at from knowledge)
