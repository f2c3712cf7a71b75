{# R1: at no instant do two approved rates fit one component of one model. Hours are compared as they are written: the
   windows of a sheet do not overlap. #}
with rates as (
    select * from {{ ref('int_billing__rates_in_force') }}
    where status = 'approved'
)

select
    one.provider_name,
    one.model,
    one.component,
    one.in_force_from,
    other.in_force_from as other_in_force_from
from rates as one
inner join rates as other
    on one.provider_name = other.provider_name
    and one.model = other.model
    and one.component = other.component
    and one.service_tier = other.service_tier
    and one.is_batch = other.is_batch
    and (one.in_force_to is null or other.in_force_from < one.in_force_to)
    and (other.in_force_to is null or one.in_force_from < other.in_force_to)
    and (one.context_to is null or other.context_from < one.context_to)
    and (other.context_to is null or one.context_from < other.context_to)
    and one.tod_from < other.tod_to
    and other.tod_from < one.tod_to
    and (one.dow_mask & other.dow_mask) <> 0
where (one.price_id, one.sheet_id, one.context_from, one.in_force_from)
    <> (other.price_id, other.sheet_id, other.context_from, other.in_force_from)
