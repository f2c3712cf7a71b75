{{ config(materialized='view') }}

select
    current_lines.*,
    current_lines.charge_category = 'Usage' and current_lines.billed_cost = 0 and current_lines.settlement_id is null
        and current_lines.consumed_quantity > 0 as is_covered
from {{ ref('int_billing__current_lines') }} as current_lines
inner join {{ ref('int_billing__frozen') }} as frozen using (billing_account_id)
where current_lines.incurred_period > frozen.closed_through
