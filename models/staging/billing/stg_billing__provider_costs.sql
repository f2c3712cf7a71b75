with source as (
    select * from {{ source('ledger', 'provider_costs') }}
)

select
    provider_name,
    report_kind,
    project_id,
    model,
    token_type,
    service_tier,
    context_window,
    currency,
    report_sha256,
    quantity,
    amount,
    usage_date,
    pulled_at
from source
