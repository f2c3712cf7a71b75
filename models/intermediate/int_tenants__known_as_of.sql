with batches as (
    select
        tenant_id,
        max(received_at) as known_as_of
    from {{ ref('stg_wire__batches') }}
    where status = 'loaded'
    group by tenant_id
),

turns as (
    select
        tenant_id,
        max(_received_at) as known_as_of
    from {{ ref('stg_wire__llm_turns') }}
    group by tenant_id
),

-- By the store's clock: a device's clock may be wrong, and nothing here may depend on when dbt runs.
known as (
    select * from batches
    union all
    select * from turns
)

select
    tenant_id,
    max(known_as_of) as known_as_of,
    {{ utc_date('max(known_as_of)') }} as known_as_of_date
from known
group by tenant_id
