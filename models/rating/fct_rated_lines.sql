{{
    config(
        materialized='incremental',
        meta={'replace': {'keys': ['tenant_id', 'usage_date'], 'changed': 'changed_rating_days'}}
    )
}}

with changed as (
    {{ changed_rating_days() }}
),

sessions as (
    select * from {{ ref('int_sessions__tree_resolved') }}
),

rates as (
    select * from {{ ref('int_billing__rates_in_force') }}
),

fx_rates as (
    select * from {{ ref('stg_billing__fx_rates') }}
),

-- Models of a tenant with a turn that cannot have its cache within its input: how their other turns count is a question.
contradicted as (
    {{ models_that_contradict_their_convention() }}
),

turns as (
    select
        t.turn_id,
        t.tenant_id,
        coalesce(accounts.billing_account_id, 'UNATTRIBUTED') as billing_account_id,
        coalesce(accounts.currency, 'USD') as currency,
        coalesce(accounts.charged_by, 'tokens') as charged_by,
        coalesce(sessions.user_id, 'UNATTRIBUTED') as user_id,
        t.session_id,
        t.agent_runtime,
        coalesce(sessions.root_session_id, t.session_id) as root_session_id,
        sessions.colony_id,
        coalesce(assumed.model, t.model) as model,
        coalesce(
            assumed.model_basis,
            case when t.model = 'unknown' then 'unknown' when aliases.is_dated then 'alias' else 'reported' end
        ) as model_basis,
        aliases.provider_name,
        aliases.price_model,
        t.input_tokens,
        t.reported_input_tokens,
        t.cache_read_input_tokens as read_tokens,
        t.cache_write_input_tokens as write_tokens,
        t.cache_write_5m_input_tokens as write_5m_tokens,
        t.cache_write_1h_input_tokens as write_1h_tokens,
        -- What it was offered as: of a tier without a price of its own nobody knows more than what others cost.
        case
            when t.speed = 'fast' then 'fast'
            when t.service_tier in ('standard', 'batch') then 'standard'
            else coalesce(t.service_tier, 'standard')
        end as service_tier,
        {{ 'true' if var('is_batch') else "coalesce(t.service_tier = 'batch', false)" }} as is_batch,
        t.cache_convention = 'unproven'
        or (t.cache_convention_basis = 'default' and contradicted.model is not null) as is_convention_unknown,
        t.output_tokens,
        t.reported_cost_usd,
        t.usage_date,
        t.occurred_at,
        changed._ingest_seq,
        changed._rating_seq
    from {{ ref('fct_llm_turns') }} as t
    inner join changed using (tenant_id, usage_date)
    left join sessions using (tenant_id, session_id)
    left join {{ ref('dim_billing_accounts') }} as accounts
        on t.tenant_id = accounts.tenant_id
        and t.usage_date >= accounts.valid_from
        -- A comparison, and not a choice with NULL: that would try every turn with every account.
        and t.usage_date < coalesce(accounts.valid_to, date '9999-12-31')
    left join {{ ref('int_billing__models_assumed') }} as assumed using (tenant_id, turn_id)
    left join {{ ref('int_billing__models_resolved') }} as aliases
        on coalesce(assumed.model, t.model) = aliases.model
        and t.usage_date >= aliases.valid_from
        and t.usage_date < aliases.valid_to
    left join contradicted
        on t.tenant_id = contradicted.tenant_id
        and t.model = contradicted.model
),

-- The output line always stands, also with no tokens: it carries what the source reported for the turn, once.
lines as (
    select
        *,
        'output' as component,
        output_tokens as quantity,
        output_tokens as high_quantity,
        reported_cost_usd as line_reported_cost_usd
    from turns
    union all
    -- Where nobody knows how the source counts, the least is charged; the most is that all of its input was uncached.
    select
        *,
        'input_uncached' as component,
        input_tokens - read_tokens - write_tokens as quantity,
        case when is_convention_unknown then reported_input_tokens else input_tokens - read_tokens - write_tokens end
            as high_quantity,
        null as line_reported_cost_usd
    from turns
    where input_tokens > read_tokens + write_tokens
        or is_convention_unknown
    union all
    select
        *,
        'cache_read' as component,
        read_tokens as quantity,
        read_tokens as high_quantity,
        null as line_reported_cost_usd
    from turns
    where read_tokens > 0
    union all
    select
        *,
        'cache_write_5m' as component,
        write_5m_tokens as quantity,
        write_5m_tokens as high_quantity,
        null as line_reported_cost_usd
    from turns
    where write_5m_tokens > 0
    union all
    select
        *,
        'cache_write_1h' as component,
        write_1h_tokens as quantity,
        write_1h_tokens as high_quantity,
        null as line_reported_cost_usd
    from turns
    where write_1h_tokens > 0
    union all
    select
        *,
        'cache_write_unknown' as component,
        write_tokens - write_5m_tokens - write_1h_tokens as quantity,
        write_tokens - write_5m_tokens - write_1h_tokens as high_quantity,
        null as line_reported_cost_usd
    from turns
    where write_tokens > write_5m_tokens + write_1h_tokens
),

-- At most one approved rate fits an instant: assert_one_price_at_a_time. An inner join of its own: with conditions that
-- are no comparison an outer join would try every line with every price of the book.
fitting as (
    select
        lines.tenant_id,
        lines.turn_id,
        lines.component,
        rates.price_id,
        rates.currency,
        rates.unit_price,
        rates.low_unit_price,
        rates.high_unit_price,
        rates.is_tier_ambiguous,
        rates.is_free,
        rates.known_from,
        rates.context_to
    from lines
    inner join rates
        on lines.provider_name = rates.provider_name
        and lines.price_model = rates.model
        and lines.component = rates.component
        and lines.service_tier = rates.service_tier
        and lines.is_batch = rates.is_batch
        and rates.status = 'approved'
        and lines.input_tokens >= rates.context_from
        and (rates.context_to is null or lines.input_tokens < rates.context_to)
        and lines.occurred_at >= rates.in_force_from
        and (rates.in_force_to is null or lines.occurred_at < rates.in_force_to)
        and {{ utc_second_of_day('lines.occurred_at') }} >= rates.tod_from
        and {{ utc_second_of_day('lines.occurred_at') }} < rates.tod_to
        and (rates.dow_mask & {{ utc_weekday_bit('lines.occurred_at') }}) <> 0
),

priced as (
    select
        lines.*,
        rates.price_id,
        rates.currency as pricing_currency,
        rates.unit_price as pricing_unit_price,
        rates.low_unit_price,
        rates.high_unit_price,
        coalesce(rates.is_tier_ambiguous, false) as is_tier_ambiguous,
        coalesce(rates.is_free, false) as is_free,
        rates.known_from as price_known_at,
        case
            when rates.price_id is null then null
            when rates.is_tier_ambiguous then 'unproven'
            when rates.context_to is not null then 'below_threshold'
            else 'single'
        end as tier_basis
    from lines
    left join fitting as rates using (tenant_id, turn_id, component)
),

-- What an unpriced line may cost: its model's proposed prices, else everything approved for its component on that day.
proposed as (
    select
        priced.tenant_id,
        priced.turn_id,
        priced.component,
        min(rates.currency) as pricing_currency,
        min(rates.low_unit_price) as low_unit_price,
        max(rates.high_unit_price) as high_unit_price
    from priced
    inner join rates
        on priced.provider_name = rates.provider_name
        and priced.price_model = rates.model
        and priced.component = rates.component
        and priced.service_tier = rates.service_tier
        and priced.is_batch = rates.is_batch
        and rates.status = 'proposed'
        and rates.currency = 'USD'
        and priced.occurred_at >= rates.in_force_from
        and (rates.in_force_to is null or priced.occurred_at < rates.in_force_to)
    where priced.price_id is null
    group by priced.tenant_id, priced.turn_id, priced.component
),

book_ranges as (
    select
        dates.usage_date,
        rates.component,
        min(rates.low_unit_price) as low_unit_price,
        max(rates.high_unit_price) as high_unit_price
    from (select distinct usage_date from changed) as dates
    inner join rates
        on rates.status = 'approved'
        and rates.service_tier = 'standard'
        and rates.is_batch = {{ 'true' if var('is_batch') else 'false' }}
        and rates.currency = 'USD'
        and rates.in_force_from < {{ utc_midnight('dates.usage_date + 1') }}
        and (rates.in_force_to is null or rates.in_force_to > {{ utc_midnight('dates.usage_date') }})
    group by dates.usage_date, rates.component
),

exposed as (
    select
        priced.* replace (
            coalesce(priced.pricing_currency, proposed.pricing_currency, 'USD') as pricing_currency,
            coalesce(
                priced.low_unit_price, proposed.low_unit_price, book_ranges.low_unit_price
            ) as low_unit_price,
            coalesce(
                priced.high_unit_price, proposed.high_unit_price, book_ranges.high_unit_price
            ) as high_unit_price
        )
    from priced
    left join proposed using (tenant_id, turn_id, component)
    left join book_ranges using (usage_date, component)
),

-- The rate of exchange of the UTC day of the event: the newest that is valid from that day or before.
pairs as (
    select distinct
        pricing_currency,
        currency,
        usage_date
    from exposed
    where pricing_currency <> currency
),

exchange as (
    select
        pairs.pricing_currency,
        pairs.currency,
        pairs.usage_date,
        {{ latest('fx_rates.fx_rate_id', '(fx_rates.valid_from, fx_rates.recorded_at)') }} as fx_rate_id,
        {{ latest('fx_rates.rate', '(fx_rates.valid_from, fx_rates.recorded_at)') }} as fx_rate
    from pairs
    inner join fx_rates
        on pairs.pricing_currency = fx_rates.currency_from
        and pairs.currency = fx_rates.currency_to
        and pairs.usage_date >= fx_rates.valid_from
    group by pairs.pricing_currency, pairs.currency, pairs.usage_date
),

-- The agreed rate that names the most; of two that name as much, the one recorded last.
agreements as (
    select
        keys.billing_account_id,
        keys.provider_name,
        keys.price_model,
        keys.component,
        keys.usage_date,
        contracts.contract_rate_id,
        contracts.factor,
        contracts.unit_price as agreed_unit_price,
        row_number() over (
            partition by keys.billing_account_id, keys.provider_name, keys.price_model, keys.component, keys.usage_date
            order by contracts.model is null, {{ is_pattern('contracts.model') }}, contracts.provider_name is null, contracts.component is null,
                contracts.recorded_at desc, contracts.contract_rate_id desc
        ) as place
    from (
        select distinct billing_account_id, provider_name, price_model, component, usage_date
        from exposed
    ) as keys
    inner join {{ ref('stg_billing__contract_rates') }} as contracts
        on keys.billing_account_id = contracts.billing_account_id
        and (contracts.provider_name is null or contracts.provider_name = keys.provider_name)
        and (
            contracts.model is null
            or contracts.model = keys.price_model
            -- A group of models: claude-*.
            or ({{ is_pattern('contracts.model') }} and {{ fits_pattern('keys.price_model', 'contracts.model') }})
        )
        and (
            contracts.component is null
            or contracts.component = keys.component
            or (
                contracts.component = 'cache_write'
                and keys.component in ('cache_write_5m', 'cache_write_1h', 'cache_write_unknown')
            )
        )
        and keys.usage_date >= contracts.valid_from
        and (contracts.valid_to is null or keys.usage_date < contracts.valid_to)
),

-- Prices in the account's currency, rounded here and never again: quantity times price is exact from here on.
listed as (
    select
        exposed.*,
        exchange.fx_rate_id,
        case
            when exposed.pricing_currency = exposed.currency then exposed.pricing_unit_price
            else {{ rounded_price('exposed.pricing_unit_price * exchange.fx_rate') }}
        end as list_unit_price,
        case
            when exposed.pricing_currency = exposed.currency then exposed.low_unit_price
            else {{ rounded_price('exposed.low_unit_price * exchange.fx_rate') }}
        end as low_list_unit_price,
        case
            when exposed.pricing_currency = exposed.currency then exposed.high_unit_price
            else {{ rounded_price('exposed.high_unit_price * exchange.fx_rate') }}
        end as high_list_unit_price
    from exposed
    left join exchange using (pricing_currency, currency, usage_date)
),

contracted as (
    select
        listed.* exclude (list_unit_price),
        coalesce(listed.list_unit_price, agreements.agreed_unit_price) as list_unit_price,
        agreements.contract_rate_id,
        case
            when agreements.agreed_unit_price is not null then agreements.agreed_unit_price
            when agreements.factor is not null then {{ rounded_price('listed.list_unit_price * agreements.factor') }}
            else listed.list_unit_price
        end as contracted_unit_price,
        case
            when agreements.agreed_unit_price is not null then agreements.agreed_unit_price
            when agreements.factor is not null then {{ rounded_price('listed.low_list_unit_price * agreements.factor') }}
            else listed.low_list_unit_price
        end as low_contracted_unit_price,
        case
            when agreements.agreed_unit_price is not null then agreements.agreed_unit_price
            when agreements.factor is not null then {{ rounded_price('listed.high_list_unit_price * agreements.factor') }}
            else listed.high_list_unit_price
        end as high_contracted_unit_price
    from listed
    left join agreements
        on agreements.place = 1
        and listed.billing_account_id = agreements.billing_account_id
        and listed.provider_name is not distinct from agreements.provider_name
        and listed.price_model is not distinct from agreements.price_model
        and listed.component = agreements.component
        and listed.usage_date = agreements.usage_date
)

select
    {{ id_of(['tenant_id', 'turn_id', 'component']) }} as rated_line_id,
    turn_id as record_id,
    billing_account_id,
    tenant_id,
    user_id,
    session_id,
    root_session_id,
    agent_runtime,
    colony_id,
    price_id,
    contract_rate_id,
    fx_rate_id,
    provider_name,
    model,
    model_basis,
    price_model,
    component,
    tier_basis,
    case
        when charged_by <> 'tokens' then 'excluded'
        when contracted_unit_price is null then 'unpriced'
        when billing_account_id = 'UNATTRIBUTED' then 'unattributed'
        else 'rated'
    end as rating_status,
    currency,
    pricing_currency,
    cast(quantity as bigint) as quantity,
    pricing_unit_price,
    list_unit_price,
    contracted_unit_price,
    {{ line_amount('quantity', 'list_unit_price') }} as list_cost,
    {{ line_amount('quantity', 'contracted_unit_price') }} as contracted_cost,
    case
        -- Seats or a plan pay for these tokens, whether their model has a price or not: fct_charges.
        when charged_by <> 'tokens' then cast(0 as decimal(38, 15))
        else {{ line_amount('quantity', 'contracted_unit_price') }}
    end as billed_cost,
    {{ line_amount('quantity', 'low_contracted_unit_price') }} as low_cost,
    {{ line_amount('high_quantity', 'high_contracted_unit_price') }} as high_cost,
    {{ line_amount('quantity', 'low_unit_price') }} as low_list_cost,
    {{ line_amount('high_quantity', 'high_unit_price') }} as high_list_cost,
    line_reported_cost_usd as reported_cost_usd,
    component = 'input_uncached' and is_convention_unknown as is_convention_unknown,
    is_tier_ambiguous,
    is_free,
    usage_date,
    occurred_at,
    price_known_at,
    _ingest_seq,
    _rating_seq
from contracted
