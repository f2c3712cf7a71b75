with batches as (
    select
        tenant_id,
        max(received_at) as known_as_of
    from {{ ref('stg_wire__batches') }}
    where status = 'loaded'
    group by tenant_id
),

sessions as (
    select
        tenant_id,
        max(last_received_at) as known_as_of
    from {{ ref('int_sessions__observations_merged') }}
    group by tenant_id
),

-- By the store's clock: a device's clock may be wrong, and nothing here may depend on when dbt runs.
known as (
    select * from batches
    union all
    select * from sessions
)

select
    tenant_id,
    max(known_as_of) as known_as_of,
    {{ utc_date('max(known_as_of)') }} as known_as_of_date
from known
group by tenant_id
