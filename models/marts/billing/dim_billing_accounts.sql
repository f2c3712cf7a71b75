with observed as (
    select * from {{ ref('stg_billing__billing_accounts') }}
),

accounts as (
    select
        tenant_id,
        {{ latest('billing_account_id', 'recorded_at') }} as billing_account_id,
        {{ latest('name', 'recorded_at') }} as name,
        {{ latest('currency', 'recorded_at') }} as currency,
        {{ latest('reporting_timezone', 'recorded_at') }} as reporting_timezone,
        {{ latest('charged_by', 'recorded_at') }} as charged_by
    from observed
    group by tenant_id
)

select
    billing_account_id,
    tenant_id,
    name,
    currency,
    reporting_timezone,
    charged_by
from accounts
union all
-- Usage of a tenant that nobody opened an account for is kept here until somebody does.
select
    'UNATTRIBUTED' as billing_account_id,
    null as tenant_id,
    'Usage without an account' as name,
    'USD' as currency,
    'UTC' as reporting_timezone,
    'tokens' as charged_by
