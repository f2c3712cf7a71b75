with source as (
    select * from {{ source('wire', 'kept_charges') }}
)

select
    tenant_id,
    model,
    -- Erasures of release 0.1.0 kept one sum of all cache writes: for how long they were written is not known any more.
    case charge_class when 'cache_write' then 'cache_write_unknown' else charge_class end as component,
    unit,
    unpriced_turns as unreported_turns,
    quantity,
    usage_date
from source
