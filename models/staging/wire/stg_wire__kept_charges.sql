with source as (
    select * from {{ source('wire', 'kept_charges') }}
)

select
    tenant_id,
    model,
    charge_class,
    unit,
    unpriced_turns as unreported_turns,
    quantity,
    usage_date
from source
