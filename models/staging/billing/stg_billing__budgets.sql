with source as (
    select * from {{ source('billing', 'budgets') }}
),

knowledge as (
    select * from {{ ref('stg_billing__knowledge') }}
)

select
    budget_id,
    tenant_id,
    scope,
    scope_id,
    period,
    measure,
    cast(limit_amount as decimal(38, 20)) as limit_amount,
    cast(warn_at as decimal(9, 4)) as warn_at,
    unpriced_limit_tokens,
    valid_from,
    valid_to,
    recorded_at
from source
-- Of two rows of one id the one recorded last speaks.
where recorded_at <= (select known_at from knowledge)
qualify row_number() over (partition by budget_id order by recorded_at desc) = 1
