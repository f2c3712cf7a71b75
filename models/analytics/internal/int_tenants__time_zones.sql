with accounts as (
    select
        tenant_id,
        {{ latest('reporting_timezone', 'recorded_at') }} as time_zone
    from {{ ref('stg_billing__billing_accounts') }}
    group by tenant_id
),

seeded as (
    select * from {{ ref('tenant_zones') }}
)

-- What finance signed holds; the seed is for tenants without an account. A name that no zone has stops nobody's build.
select
    coalesce(accounts.tenant_id, seeded.tenant_id) as tenant_id,
    coalesce(accounts.time_zone, seeded.time_zone) as time_zone
from accounts
full join seeded
    on accounts.tenant_id = seeded.tenant_id
where coalesce(accounts.time_zone, seeded.time_zone) in ({{ time_zone_names() }})
