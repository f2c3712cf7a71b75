with sessions as (
    select * from {{ ref('dim_sessions') }}
),

batches as (
    select * from {{ ref('stg_wire__batches') }}
),

daily as (
    select * from {{ ref('agg_usage_tenant_daily') }}
),

seen as (
    select tenant_id, region, session_id, nullif(user_id, 'UNATTRIBUTED') as user_id, null as device_id
    from sessions
    union all
    select tenant_id, region, null as session_id, user_id, device_id
    from batches
    where status = 'loaded'
),

tenants as (
    select
        tenant_id,
        min(region) as region,
        count(distinct user_id) as users,
        count(distinct device_id) as devices,
        count(distinct session_id) as sessions
    from seen
    group by tenant_id
),

known as (
    select * from {{ ref('int_tenants__known_as_of') }}
),

usage as (
    select
        tenant_id,
        min(usage_date) as first_usage_date,
        max(usage_date) as last_usage_date
    from daily
    group by tenant_id
)

select
    tenants.tenant_id,
    tenants.region,
    tenants.users,
    tenants.devices,
    tenants.sessions,
    usage.first_usage_date,
    usage.last_usage_date,
    known.known_as_of
from tenants
left join usage using (tenant_id)
left join known using (tenant_id)
