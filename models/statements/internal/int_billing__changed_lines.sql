{{ config(materialized='view') }}

with sealed_lines as (
    select
        sealed.*,
        erased.line_id is not null as is_erased,
        -- A seat that is charged to another account today, or under another of its tenants, is charged there.
        erased.is_taken_over or coalesce(
            sealed.record_id is null
            and (charges.tenant_id <> sealed.tenant_id or charges.billing_account_id <> sealed.billing_account_id),
            false
        ) as is_taken_over
    from {{ ref('int_billing__sealed_lines_in_force') }} as sealed
    left join {{ ref('int_billing__erased_lines') }} as erased using (tenant_id, line_id, billing_account_id)
    left join {{ ref('fct_charges') }} as charges on sealed.line_id = charges.charge_id
)

select
    sealed.tenant_id,
    sealed.line_id,
    sealed.billing_account_id,
    current_lines.line_id is not null as is_replaced,
    case
        when moved.line_id is not null or (sealed.is_taken_over and sealed.is_erased) then 'attribution'
        when current_lines.line_id is null then 'withdrawn'
        when (sealed.pricing_quantity is distinct from current_lines.pricing_quantity) then 'quantity'
        when sealed.charge_category = 'Adjustment' and sealed.billed_cost <> current_lines.billed_cost then 'commitment'
        when sealed.billed_cost <> current_lines.billed_cost
            or (sealed.list_unit_price is distinct from current_lines.list_unit_price)
            or (sealed.contracted_unit_price is distinct from current_lines.contracted_unit_price)
            then 'price'
        else 'attribution'
    end as cause
from sealed_lines as sealed
left join {{ ref('int_billing__current_lines') }} as current_lines
    on sealed.tenant_id = current_lines.tenant_id
    and sealed.line_id = current_lines.line_id
    and sealed.billing_account_id = current_lines.billing_account_id
left join {{ ref('int_billing__current_lines') }} as moved
    on sealed.tenant_id = moved.tenant_id
    and sealed.line_id = moved.line_id
    and sealed.billing_account_id <> moved.billing_account_id
-- A line whose owner had it erased is no correction: the amount stays, and nothing else is known of it any more. But of
-- one account only.
where (sealed.is_taken_over or not sealed.is_erased)
    -- What was written off stays written off, also when its model gets a price.
    and not (sealed.settlement_id is not null and current_lines.line_id is not null)
    -- An earlier version billed usage without an account. It stays until somebody has an account for it.
    and not (sealed.billing_account_id = 'UNATTRIBUTED' and moved.line_id is null)
    and (
        current_lines.line_id is null
        {% for fact in line_facts() -%}
        or sealed.{{ fact }} is distinct from current_lines.{{ fact }}
        {% endfor %}
    )
