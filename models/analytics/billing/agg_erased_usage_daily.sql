select
    tenant_id,
    model,
    component,
    unit,
    cast(sum(unreported_turns) as bigint) as unreported_turns,
    sum(quantity) as quantity,
    usage_date
from {{ ref('stg_wire__kept_charges') }}
group by tenant_id, model, component, unit, usage_date
