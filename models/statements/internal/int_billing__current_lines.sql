{{ config(materialized='view') }}

{%- set charge_columns = [
    'line_id', 'tenant_id', 'billing_account_id', 'user_id', 'component', 'charge_category', 'charge_frequency',
    'description', 'contract_rate_id', 'currency', 'pricing_unit', 'trust_grade', 'events', 'pricing_quantity',
    'list_cost', 'contracted_cost', 'billed_cost', 'charge_start_date', 'charge_end_date'
] -%}

-- What finance let go by name: usage without a price up to the end of a month, by account and model.
with write_offs as (
    select
        billing_account_id,
        model,
        max(billing_period) as billing_period,
        {{ latest('settlement_id', 'recorded_at') }} as settlement_id,
        {{ latest('reason', 'recorded_at') }} as reason
    from {{ ref('stg_billing__settlements') }}
    where kind = 'write_off'
    group by billing_account_id, model
),

-- What is true today, whatever was booked before. A line without a price cannot be booked: it is an exception, or it was
-- written off. Usage without an account is owed by nobody: it is a worklist (exc_billing_exceptions).
usage_lines as (
    select
        lines.rated_line_id as line_id,
        lines.record_id,
        lines.tenant_id,
        lines.billing_account_id,
        lines.user_id,
        lines.session_id,
        lines.root_session_id,
        lines.colony_id,
        queens.queen_name as queen_id,
        lines.provider_name,
        lines.model,
        lines.model_basis,
        lines.component,
        'Usage' as charge_category,
        'Usage-Based' as charge_frequency,
        case
            when lines.billed_cost is null then concat('written off: ', write_offs.reason)
            -- A plan pays for tokens that nobody listed a price of.
            when lines.list_cost is null then concat(lines.component, ' tokens of ', lines.model, ', without a list price')
        end as description,
        lines.price_id,
        lines.contract_rate_id,
        case when lines.billed_cost is null then write_offs.settlement_id end as settlement_id,
        lines.currency,
        'Tokens' as consumed_unit,
        '1000000 Tokens' as pricing_unit,
        case
            when matched.usage_date is not null then 'provider_matched'
            when checked.is_corroborated then 'corroborated'
            else 'self_reported'
        end as trust_grade,
        cast(1 as bigint) as events,
        cast(lines.quantity as decimal(38, 6)) as consumed_quantity,
        {{ millions('lines.quantity') }} as pricing_quantity,
        lines.pricing_currency,
        lines.fx_rate_id,
        lines.pricing_unit_price,
        -- What was agreed, in the currency of the price; a unit price that was agreed is in the bill's.
        case
            when rates.unit_price is not null then null
            when rates.factor is not null then {{ rounded_price('lines.pricing_unit_price * rates.factor') }}
            else lines.pricing_unit_price
        end as pricing_contracted_unit_price,
        lines.list_unit_price,
        lines.contracted_unit_price,
        coalesce(lines.list_cost, lines.billed_cost, 0) as list_cost,
        coalesce(lines.contracted_cost, lines.billed_cost, 0) as contracted_cost,
        coalesce(lines.billed_cost, 0) as billed_cost,
        lines.usage_date as charge_start_date,
        lines.usage_date + 1 as charge_end_date,
        lines.price_known_at as rated_as_of
    from {{ ref('fct_rated_lines') }} as lines
    left join {{ ref('mart_usage_crosscheck') }} as checked using (tenant_id, session_id)
    left join {{ ref('int_sessions__observations_merged') }} as queens
        on lines.tenant_id = queens.tenant_id
        and lines.root_session_id = queens.session_id
    left join {{ ref('rpt_reconciliation') }} as matched
        on lines.usage_date = matched.usage_date
        and lines.provider_name = matched.provider_name
        and {{ token_type('lines.component') }} = matched.token_type
        and {{ undated_model('lines.price_model') }} = matched.model
        and matched.variance_class in ('match', 'within_tolerance')
    left join {{ ref('stg_billing__contract_rates') }} as rates using (contract_rate_id)
    left join write_offs
        on lines.billing_account_id = write_offs.billing_account_id
        and lines.model = write_offs.model
        and lines.usage_date < {{ next_month('write_offs.billing_period') }}
    where lines.billing_account_id <> 'UNATTRIBUTED'
        and (lines.billed_cost is not null or write_offs.settlement_id is not null)
),

-- What a plan, a commitment or a credit adds. A tier, a package or a share of a month has no unit price; a charge is of
-- the whole month and stands on its first day.
charge_lines as (
    select
        charge_id as line_id,
        tenant_id,
        billing_account_id,
        user_id,
        item as component,
        case charge_kind
            when 'plan' then 'Purchase'
            when 'true_up' then 'Adjustment'
            when 'credit' then 'Credit'
        end as charge_category,
        case when charge_kind = 'plan' then 'Recurring' else 'One-Time' end as charge_frequency,
        case charge_kind
            when 'plan' then concat('plan: ', item)
            when 'true_up' then concat('up to the commitment: ', item)
            when 'credit' then 'credit drawn'
        end as description,
        plan_item_id as contract_rate_id,
        currency,
        case
            when charge_kind <> 'plan' then null
            when item = 'tokens' then '1000000 Tokens'
            when item = 'colony_day' then 'Colony-Days'
            when user_id is not null then 'Seat-Days'
            else 'Seats'
        end as pricing_unit,
        'self_reported' as trust_grade,
        cast(1 as bigint) as events,
        case
            when charge_kind <> 'plan' then null
            when item = 'tokens' then {{ millions('quantity') }}
            else cast(quantity as decimal(20, 6))
        end as pricing_quantity,
        amount as list_cost,
        amount as contracted_cost,
        amount as billed_cost,
        billing_month as charge_start_date,
        {{ next_month('billing_month') }} as charge_end_date
    from {{ ref('fct_charges') }}
),

current_lines as (
    select {{ current_line_columns() | join(', ') }}
    from usage_lines
    union all
    select
        {%- for column in current_line_columns() %}
        {{ column if column in charge_columns else 'null as ' ~ column }}{{ ',' if not loop.last }}
        {%- endfor %}
    from charge_lines
)

select
    *,
    {{ month_of('charge_start_date') }} as incurred_period
from current_lines
