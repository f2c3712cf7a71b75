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
        lines.usage_date + 1 as charge_end_date
    from {{ ref('fct_rated_lines') }} as lines
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

truth as (
    select * from usage_lines
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

-- Days of which usage was erased on request: its amounts stay as they were billed (mart_daily_billing), so a line that
-- is gone there is no correction.
erased_days as (
    select distinct
        tenant_id,
        usage_date
    from {{ ref('stg_wire__kept_charges') }}
),

compared as (
    select
        booked.tenant_id,
        booked.line_id,
        dated.line_id is null as is_gone,
        case
            when dated.line_id is null then 'withdrawn'
            when booked.consumed_quantity <> dated.consumed_quantity then 'quantity'
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
    left join erased_days
        on booked.tenant_id = erased_days.tenant_id
        and booked.charge_start_date = erased_days.usage_date
    where (dated.line_id is null and erased_days.tenant_id is null)
        {% for fact in line_facts() -%}
        or (dated.line_id is not null and booked.{{ fact }} is distinct from dated.{{ fact }})
        {% endfor %}
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
    seal_seq
from everything
