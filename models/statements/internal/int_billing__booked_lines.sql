{{ config(materialized='view') }}

{#- What is put together below has its columns in one order: usage has all of these, charges some. -#}
{%- set usage_columns = [
    'line_id', 'record_id', 'tenant_id', 'billing_account_id', 'user_id', 'session_id', 'root_session_id',
    'colony_id', 'queen_id', 'provider_name', 'model', 'model_basis', 'component', 'charge_category',
    'charge_frequency', 'description', 'price_id', 'contract_rate_id', 'settlement_id', 'currency', 'consumed_unit',
    'pricing_unit', 'trust_grade', 'events', 'consumed_quantity', 'pricing_quantity', 'pricing_currency',
    'fx_rate_id', 'pricing_unit_price', 'pricing_contracted_unit_price', 'list_unit_price', 'contracted_unit_price',
    'list_cost', 'contracted_cost', 'billed_cost', 'charge_start_date', 'charge_end_date', 'rated_as_of'
] -%}
{%- set charge_columns = [
    'line_id', 'tenant_id', 'billing_account_id', 'user_id', 'component', 'charge_category', 'charge_frequency',
    'description', 'contract_rate_id', 'currency', 'pricing_unit', 'trust_grade', 'events', 'pricing_quantity',
    'list_cost', 'contracted_cost', 'billed_cost', 'charge_start_date', 'charge_end_date'
] -%}
{%- set pending_columns = usage_columns + [
    'incurred_period', 'original_period', 'billing_period', 'effective_cost', 'line_kind', 'cause'
] -%}
{%- set line_columns = pending_columns + ['booking', 'seal_seq'] -%}

with frozen as (
    select * from {{ ref('int_billing__frozen') }}
),

-- What finance let go by name: usage without a price up to the end of a month, by account and model.
write_offs as (
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
    select {{ usage_columns | join(', ') }}
    from usage_lines
    union all
    select
        {%- for column in usage_columns %}
        {{ column if column in charge_columns else 'null as ' ~ column }}{{ ',' if not loop.last }}
        {%- endfor %}
    from charge_lines
),

dated as (
    select
        current_lines.*,
        {{ month_of('current_lines.charge_start_date') }} as incurred_period
    from current_lines
),

sealed as (
    select * from {{ ref('stg_billing__closed_lines') }}
),

-- What the closed statements of an account say of a line, all of them together: its last word that was not taken back.
-- A line that moved to another account is gone from the one and late in the other: each has a book of its own.
latest_sealed as (
    select
        *,
        row_number() over (
            partition by tenant_id, line_id, billing_account_id
            order by seal_seq desc, line_kind = 'reversal'
        ) as place
    from sealed
),

booked as (
    select * from latest_sealed
    where place = 1 and line_kind <> 'reversal'
),

elsewhere as (
    select distinct tenant_id, line_id
    from booked
),

compared as (
    select
        booked.tenant_id,
        booked.line_id,
        booked.billing_account_id,
        dated.line_id is not null as is_replaced,
        case
            when moved.line_id is not null then 'attribution'
            when dated.line_id is null then 'withdrawn'
            when booked.pricing_quantity is distinct from dated.pricing_quantity then 'quantity'
            when booked.charge_category = 'Adjustment' and booked.billed_cost <> dated.billed_cost then 'commitment'
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
        and booked.billing_account_id = dated.billing_account_id
    left join dated as moved
        on booked.tenant_id = moved.tenant_id
        and booked.line_id = moved.line_id
        and booked.billing_account_id <> moved.billing_account_id
    -- A line whose owner had it erased is no correction: the amount stays, and nothing else is known of it any more.
    where coalesce(booked.record_id, booked.user_id, '') <> 'ERASED'
        -- What was written off stays written off, also when its model gets a price.
        and not (booked.settlement_id is not null and dated.line_id is not null)
        -- An earlier version billed usage without an account. It stays until somebody has an account for it.
        and not (booked.billing_account_id = 'UNATTRIBUTED' and moved.line_id is null)
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
            -- What stands in its place takes over what it covered; if nothing does, the others have covered it.
            case
                when compared.is_replaced then -coalesce(booked.effective_cost, booked.billed_cost)
                else -booked.billed_cost
            end as effective_cost,
            frozen.correction_period as billing_period,
            'reversal' as line_kind,
            compared.cause as cause,
            booked.billing_period as original_period
        )
    from booked
    inner join compared using (tenant_id, line_id, billing_account_id)
    inner join frozen using (billing_account_id)
),

replacements as (
    select
        dated.*,
        booked.billing_period as original_period,
        frozen.correction_period as billing_period,
        coalesce(booked.effective_cost, booked.billed_cost, 0) + dated.billed_cost - coalesce(booked.billed_cost, 0)
            as effective_cost,
        case when booked.line_id is null then 'late' else 'replacement' end as line_kind,
        coalesce(
            compared.cause,
            case when elsewhere.line_id is not null then 'attribution' end,
            'late_usage'
        ) as cause
    from dated
    inner join frozen using (billing_account_id)
    left join booked
        on dated.tenant_id = booked.tenant_id
        and dated.line_id = booked.line_id
        and dated.billing_account_id = booked.billing_account_id
    left join compared
        on dated.tenant_id = compared.tenant_id
        and dated.line_id = compared.line_id
        and dated.billing_account_id = compared.billing_account_id
    left join elsewhere
        on dated.tenant_id = elsewhere.tenant_id
        and dated.line_id = elsewhere.line_id
    where dated.incurred_period <= frozen.closed_through
        and (booked.line_id is null or compared.line_id is not null)
),

-- A plan is bought for the usage of its month: the usage carries its cost, by its tokens, and the purchase none. Shares
-- are cut off after the fifteenth digit as differences of running shares, so they add up to what was paid.
coverable as (
    select
        dated.*,
        dated.charge_category = 'Usage' and dated.billed_cost = 0 and dated.settlement_id is null
            and dated.consumed_quantity > 0 as is_covered
    from dated
    inner join frozen using (billing_account_id)
    where dated.incurred_period > frozen.closed_through
),

covered as (
    select
        *,
        cast(coalesce(sum(billed_cost) filter (where charge_category = 'Purchase') over month, 0) as decimal(28, 15))
            as bought,
        cast(coalesce(sum(consumed_quantity) filter (where is_covered) over month, 0) as hugeint) as tokens,
        cast(
            coalesce(sum(consumed_quantity) filter (where is_covered) over so_far, 0) as hugeint
        ) as tokens_so_far
    from coverable
    window
        month as (partition by billing_account_id, currency, incurred_period),
        so_far as (
            partition by billing_account_id, currency, incurred_period order by charge_start_date, tenant_id, line_id
            rows between unbounded preceding and current row
        )
),

originals as (
    select
        covered.* exclude (is_covered, bought, tokens, tokens_so_far),
        case
            when tokens = 0 or bought = 0 then billed_cost
            when charge_category = 'Purchase' then 0
            when is_covered then {{ running_share('bought', 'tokens_so_far', 'tokens') }}
                - {{ running_share('bought', 'tokens_so_far - cast(consumed_quantity as hugeint)', 'tokens') }}
            else billed_cost
        end as effective_cost,
        cast(null as date) as original_period,
        incurred_period as billing_period,
        'original' as line_kind,
        cast(null as varchar) as cause
    from covered
),

pending as (
    {%- for lines in ['replacements', 'reversals', 'originals'] %}
    select {{ pending_columns | join(', ') }}
    from {{ lines }}
    {{ 'union all' if not loop.last }}
    {%- endfor %}
),

-- How often a period of an account was sealed, as its own transitions say or those of all accounts.
periods as (
    select
        frozen.billing_account_id,
        months.billing_period,
        coalesce(own.bookings, months.bookings) as bookings
    from frozen
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

everything as (
    select {{ line_columns | join(', ') }}
    from sealed
    union all
    select {{ line_columns | join(', ') }}
    from numbered
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
