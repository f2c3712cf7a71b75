with source as (
    select * from {{ source('billing', 'session_users') }}
),

knowledge as (
    select * from {{ ref('stg_billing__knowledge') }}
)

select
    tenant_id,
    session_id,
    user_id,
    recorded_by,
    approved_by,
    recorded_at
from source
where recorded_at <= (select known_at from knowledge)
