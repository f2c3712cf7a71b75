with observed as (
    select * from {{ ref('stg_billing__billing_accounts') }}
),

edges as (
    select tenant_id, valid_from as edge from observed
    union
    select tenant_id, valid_to as edge from observed
    where valid_to is not null
),

spans as (
    select
        tenant_id,
        edge as valid_from,
        lead(edge) over (partition by tenant_id order by edge) as valid_to
    from edges
),

-- Of two words about one day the one recorded last counts.
spoken as (
    select
        spans.tenant_id,
        spans.valid_from,
        spans.valid_to,
        observed.billing_account_id,
        observed.name,
        observed.currency,
        observed.reporting_timezone,
        observed.charged_by,
        row_number() over (
            partition by spans.tenant_id, spans.valid_from order by observed.recorded_at desc
        ) as place
    from spans
    inner join observed
        on spans.tenant_id = observed.tenant_id
        and spans.valid_from >= observed.valid_from
        and (observed.valid_to is null or spans.valid_from < observed.valid_to)
)

select
    billing_account_id,
    tenant_id,
    name,
    currency,
    reporting_timezone,
    charged_by,
    valid_from,
    valid_to
from spoken
-- An account that was closed is said so by a row of nobody.
where place = 1 and billing_account_id <> 'UNATTRIBUTED'
union all
-- Usage of a tenant that nobody opened an account for is kept here until somebody does.
select
    'UNATTRIBUTED' as billing_account_id,
    null as tenant_id,
    'Usage without an account' as name,
    'USD' as currency,
    'UTC' as reporting_timezone,
    'tokens' as charged_by,
    date '0001-01-01' as valid_from,
    cast(null as date) as valid_to
