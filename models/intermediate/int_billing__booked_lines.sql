{{ config(materialized='view') }}

with frozen as (
    select * from {{ ref('int_billing__frozen') }}
),

-- What is true today, whatever was booked before. A line without a price cannot be booked: it is an exception.
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
        lines.component,
        'Usage' as charge_category,
        'Usage-Based' as charge_frequency,
        cast(null as varchar) as description,
        lines.price_id,
        lines.contract_rate_id,
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
        lines.list_unit_price,
        lines.contracted_unit_price,
        lines.list_cost,
        lines.contracted_cost,
        lines.billed_cost,
        lines.usage_date as charge_start_date,
        lines.usage_date + 1 as charge_end_date,
        lines.price_known_at as rated_as_of
    from {{ ref('fct_rated_lines') }} as lines
    left join {{ ref('dim_sessions') }} as queens
        on lines.tenant_id = queens.tenant_id
        and lines.root_session_id = queens.session_id
    left join {{ ref('mart_usage_crosscheck') }} as checked
        on lines.tenant_id = checked.tenant_id
        and lines.session_id = checked.session_id
    left join {{ ref('rpt_reconciliation') }} as matched
        on lines.usage_date = matched.usage_date
        and lines.provider_name = matched.provider_name
        and {{ token_type('lines.component') }} = matched.token_type
        and {{ undated_model('lines.price_model') }} = matched.model
        and matched.variance_class in ('match', 'within_tolerance')
    where lines.billed_cost is not null
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

truth as (
    select * from usage_lines
    union all by name
    select * from charge_lines
),

dated as (
    select
        truth.*,
        {{ month_of('truth.charge_start_date') }} as incurred_period
    from truth
),

sealed as (
    select * from {{ ref('stg_billing__closed_lines') }}
),

-- What the closed statements say of a line, all of them together: its last word that was not taken back.
last_words as (
    select
        *,
        row_number() over (
            partition by tenant_id, line_id
            order by seal_seq desc, line_kind = 'reversal'
        ) as place
    from sealed
),

booked as (
    select * from last_words
    where place = 1 and line_kind <> 'reversal'
),

compared as (
    select
        booked.tenant_id,
        booked.line_id,
        dated.line_id is null as is_gone,
        case
            when dated.line_id is null then 'withdrawn'
            when booked.pricing_quantity is distinct from dated.pricing_quantity then 'quantity'
            when booked.billed_cost <> dated.billed_cost
                or booked.list_unit_price is distinct from dated.list_unit_price
                or booked.contracted_unit_price is distinct from dated.contracted_unit_price
                then 'price'
            else 'attribution'
        end as cause
    from booked
    left join dated
        on booked.tenant_id = dated.tenant_id
        and booked.line_id = dated.line_id
    -- A line whose owner had it erased is no correction: the amount stays, and nothing else is known of it any more.
    where coalesce(booked.record_id, booked.user_id, '') <> 'ERASED'
        and (
            dated.line_id is null
            {% for fact in line_facts() -%}
            or booked.{{ fact }} is distinct from dated.{{ fact }}
            {% endfor %}
        )
),

reversals as (
    select
        booked.* replace (
            {% for measure in line_measures() -%}
            -booked.{{ measure }} as {{ measure }},
            {% endfor -%}
            frozen.correction_period as billing_period,
            'reversal' as line_kind,
            compared.cause as cause,
            booked.billing_period as original_period
        )
    from booked
    inner join compared
        on booked.tenant_id = compared.tenant_id
        and booked.line_id = compared.line_id
    cross join frozen
),

replacements as (
    select
        dated.*,
        booked.billing_period as original_period,
        frozen.correction_period as billing_period,
        case when booked.line_id is null then 'late' else 'replacement' end as line_kind,
        coalesce(compared.cause, 'late_usage') as cause
    from dated
    cross join frozen
    left join booked
        on dated.tenant_id = booked.tenant_id
        and dated.line_id = booked.line_id
    left join compared
        on dated.tenant_id = compared.tenant_id
        and dated.line_id = compared.line_id
    where dated.incurred_period <= frozen.closed_through
        and (booked.line_id is null or compared.line_id is not null)
),

originals as (
    select
        dated.*,
        cast(null as date) as original_period,
        dated.incurred_period as billing_period,
        'original' as line_kind,
        cast(null as varchar) as cause
    from dated
    cross join frozen
    where dated.incurred_period > frozen.closed_through
),

pending as (
    select * from replacements
    union all by name
    select * exclude (seal_seq, booking, place) from reversals
    union all by name
    select * from originals
),

numbered as (
    select
        pending.*,
        coalesce(periods.bookings, 0) + 1 as booking,
        cast(null as bigint) as seal_seq
    from pending
    left join {{ ref('stg_billing__periods') }} as periods
        on pending.billing_period = periods.billing_period
),

everything as (
    select * from sealed
    union all by name
    select * from numbered
)

select
    -- What a row of the cost export is one of: lines that agree in all of these are one row.
    {{ row_key([
        'billing_period', 'booking', 'line_kind', 'cause', 'original_period', 'charge_start_date', 'charge_end_date',
        'billing_account_id', 'currency', 'tenant_id', 'user_id', 'session_id', 'root_session_id', 'colony_id',
        'provider_name', 'model', 'component', 'charge_category', 'charge_frequency', 'description', 'price_id',
        'contract_rate_id', 'list_unit_price', 'contracted_unit_price', 'trust_grade'
    ]) }} as row_key,
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
    component,
    charge_category,
    charge_frequency,
    description,
    price_id,
    contract_rate_id,
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
    charge_start_date,
    charge_end_date,
    incurred_period,
    original_period,
    billing_period,
    rated_as_of,
    seal_seq
from everything
