{{ config(materialized='view') }}

with written_off as (
    select distinct tenant_id, line_id, billing_account_id
    from {{ ref('stg_billing__closed_lines') }}
    where settlement_id is not null
)

select
    rated.tenant_id,
    rated.billing_account_id,
    rated.colony_id,
    rated.currency,
    rated.quantity,
    -- What was written off is billed as nothing for good: credit pays nothing for it, a commitment is not met by it.
    case when written_off.line_id is null then rated.billed_cost end as billed_cost,
    rated.usage_date
from {{ ref('fct_rated_lines') }} as rated
left join written_off
    on rated.tenant_id = written_off.tenant_id
    and rated.rated_line_id = written_off.line_id
    and rated.billing_account_id = written_off.billing_account_id
union all
-- Usage that was erased after its month was closed was counted: what was charged for it stays too.
select
    tenant_id,
    billing_account_id,
    colony_id,
    currency,
    consumed_quantity as quantity,
    billed_cost,
    charge_start_date as usage_date
from {{ ref('int_billing__erased_lines') }}
where record_id = 'ERASED' and not is_taken_over
