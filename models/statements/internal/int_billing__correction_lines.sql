{{ config(materialized='view') }}

-- As CTEs that are read more than once, both are computed once: of what they are made of, each reads every line.
with sealed_lines as (
    select * from {{ ref('int_billing__sealed_lines_in_force') }}
),

changed_lines as (
    select * from {{ ref('int_billing__changed_lines') }}
),

elsewhere as (
    select distinct tenant_id, line_id
    from sealed_lines
),

reversals as (
    select
        sealed.* replace (
            {% for measure in line_measures() -%}
            -sealed.{{ measure }} as {{ measure }},
            {% endfor -%}
            -- What stands in its place takes over what it covered; if nothing does, the others have covered it.
            case
                when changed.is_replaced then -coalesce(sealed.effective_cost, sealed.billed_cost)
                else -sealed.billed_cost
            end as effective_cost,
            frozen.correction_period as billing_period,
            'reversal' as line_kind,
            changed.cause as cause,
            sealed.billing_period as original_period
        )
    from sealed_lines as sealed
    inner join changed_lines as changed using (tenant_id, line_id, billing_account_id)
    inner join {{ ref('int_billing__frozen') }} as frozen using (billing_account_id)
),

replacements as (
    select
        current_lines.*,
        sealed.billing_period as original_period,
        frozen.correction_period as billing_period,
        coalesce(sealed.effective_cost, sealed.billed_cost, 0) + current_lines.billed_cost - coalesce(sealed.billed_cost, 0)
            as effective_cost,
        case when sealed.line_id is null then 'late' else 'replacement' end as line_kind,
        coalesce(
            changed.cause,
            case when elsewhere.line_id is not null then 'attribution' end,
            'late_usage'
        ) as cause
    from {{ ref('int_billing__current_lines') }} as current_lines
    inner join {{ ref('int_billing__frozen') }} as frozen using (billing_account_id)
    left join sealed_lines as sealed
        on current_lines.tenant_id = sealed.tenant_id
        and current_lines.line_id = sealed.line_id
        and current_lines.billing_account_id = sealed.billing_account_id
    left join changed_lines as changed
        on current_lines.tenant_id = changed.tenant_id
        and current_lines.line_id = changed.line_id
        and current_lines.billing_account_id = changed.billing_account_id
    left join elsewhere
        on current_lines.tenant_id = elsewhere.tenant_id
        and current_lines.line_id = elsewhere.line_id
    where current_lines.incurred_period <= frozen.closed_through
        and (sealed.line_id is null or changed.line_id is not null)
)

select {{ pending_line_columns() | join(', ') }}
from reversals
union all
select {{ pending_line_columns() | join(', ') }}
from replacements
