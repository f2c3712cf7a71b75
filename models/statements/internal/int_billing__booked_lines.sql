{{ config(materialized='view') }}

-- What this reads stands in views of its own: DuckDB keeps a CTE that is read twice with all of its columns, and reads none
-- of what is above it by column. A sum of a month's costs took six times as long, and five times the memory.
with pending as (
    select * from {{ ref('int_billing__correction_lines') }}
    union all
    select * from {{ ref('int_billing__original_lines') }}
),

-- How often a period of an account was sealed, as its own transitions say or those of all accounts.
periods as (
    select
        frozen.billing_account_id,
        months.billing_period,
        coalesce(own.bookings, months.bookings) as bookings
    from {{ ref('int_billing__frozen') }} as frozen
    cross join (
        select billing_period, max(bookings) filter (where billing_account_id is null) as bookings
        from {{ ref('stg_billing__periods') }}
        group by billing_period
    ) as months
    left join {{ ref('stg_billing__periods') }} as own
        on frozen.billing_account_id = own.billing_account_id
        and months.billing_period = own.billing_period
),

numbered as (
    select
        pending.*,
        coalesce(periods.bookings, 0) + 1 as booking,
        cast(null as bigint) as seal_seq
    from pending
    left join periods using (billing_period, billing_account_id)
),

sealed_and_pending as (
    select {{ (pending_line_columns() + ['booking', 'seal_seq']) | join(', ') }}
    from {{ ref('stg_billing__closed_lines') }}
    union all
    select {{ (pending_line_columns() + ['booking', 'seal_seq']) | join(', ') }}
    from numbered
),

-- Sealed lines tell erased colonies apart, for plans that count them; statements do not.
everything as (
    select * replace (case when colony_id like 'ERASED-%' then 'ERASED' else colony_id end as colony_id)
    from sealed_and_pending
)

select
    -- What a row of the cost export is one of: lines that agree in all of these are one row.
    {{ row_key([
        'billing_period', 'booking', 'line_kind', 'cause', 'original_period', 'charge_start_date', 'charge_end_date',
        'billing_account_id', 'currency', 'tenant_id', 'user_id', 'session_id', 'root_session_id', 'colony_id',
        'provider_name', 'model', 'component', 'charge_category', 'charge_frequency', 'description', 'price_id',
        'contract_rate_id', 'list_unit_price', 'contracted_unit_price', 'trust_grade'
    ], ['settlement_id', "case when model_basis in ('session', 'default') then model_basis end"]) }} as row_key,
    line_id,
    record_id,
    tenant_id,
    billing_account_id,
    user_id,
    session_id,
    root_session_id,
    colony_id,
    queen_id,
    provider_name,
    model,
    model_basis,
    component,
    charge_category,
    charge_frequency,
    description,
    price_id,
    contract_rate_id,
    settlement_id,
    currency,
    consumed_unit,
    pricing_unit,
    trust_grade,
    line_kind,
    cause,
    events,
    booking,
    consumed_quantity,
    pricing_quantity,
    list_unit_price,
    contracted_unit_price,
    list_cost,
    contracted_cost,
    billed_cost,
    -- Lines that were sealed by an earlier version do not say what they cost in effect: what was billed.
    cast(coalesce(effective_cost, billed_cost) as decimal(38, 15)) as effective_cost,
    pricing_currency,
    fx_rate_id,
    pricing_unit_price,
    pricing_contracted_unit_price,
    charge_start_date,
    charge_end_date,
    incurred_period,
    original_period,
    billing_period,
    rated_as_of,
    seal_seq
from everything
