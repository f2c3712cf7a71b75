with source as (
    select * from {{ source('ledger', 'restatements') }}
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
    quantity_before,
    quantity_after,
    usage_date,
    billing_period,
    as_of
from source
