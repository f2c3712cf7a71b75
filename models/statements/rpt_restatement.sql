with restatements as (
    select * from {{ ref('stg_billing__restatements') }}
)

select
    export,
    row_key,
    change,
    cause,
    currency,
    accepted_by,
    version,
    billed_cost_before,
    billed_cost_after,
    cast(coalesce(billed_cost_after, 0) - coalesce(billed_cost_before, 0) as decimal(38, 15)) as billed_cost_change,
    quantity_before,
    quantity_after,
    usage_date,
    billing_period,
    as_of
from restatements
