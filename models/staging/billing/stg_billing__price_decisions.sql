with source as (
    select * from {{ source('billing', 'price_decisions') }}
),

knowledge as (
    select * from {{ ref('stg_billing__knowledge') }}
)

select
    sheet_id,
    decision,
    decided_by,
    reason,
    decided_at
from source
where decided_at <= (select known_at from knowledge)
