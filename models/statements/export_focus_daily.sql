{{
    config(
        materialized='incremental',
        meta={'replace': {'keys': ['tenant_id', 'usage_date'], 'changed': 'changed_export_days'}}
    )
}}

-- depends_on: {{ ref('int_billing__frozen') }}

with changed as (
    {{ changed_export_days() }}
),

-- As it is called now: a name is no fact of a closed month.
accounts as (
    select billing_account_id, {{ latest('name', 'valid_from') }} as name
    from {{ ref('int_billing__account_terms') }}
    group by billing_account_id
),

lines as (
    select
        booked.*,
        changed._booking_seq
    from {{ ref('int_billing__booked_lines') }} as booked
    inner join changed
        on booked.tenant_id = changed.tenant_id
        and booked.charge_start_date = changed.usage_date
),

grouped as (
    select
        row_key,
        {% for column in [
            'billing_period', 'booking', 'line_kind', 'cause', 'original_period', 'charge_start_date',
            'charge_end_date', 'billing_account_id', 'currency', 'tenant_id', 'user_id', 'session_id',
            'root_session_id', 'colony_id', 'provider_name', 'model', 'model_basis', 'component', 'charge_category',
            'charge_frequency', 'description', 'price_id', 'contract_rate_id', 'list_unit_price',
            'contracted_unit_price', 'pricing_currency', 'pricing_unit_price', 'pricing_contracted_unit_price',
            'settlement_id', 'trust_grade', 'consumed_unit', 'pricing_unit', 'incurred_period', 'queen_id'
        ] -%}
        any_value({{ column }}) as {{ column }},
        {% endfor -%}
        {% for measure in line_measures() -%}
        sum({{ measure }}) as {{ measure }},
        {% endfor -%}
        sum(effective_cost) as effective_cost,
        max(rated_as_of) as rated_as_of,
        max(_booking_seq) as _booking_seq
    from lines
    group by row_key
),

invoiced as (
    select
        grouped.*,
        coalesce(
            grouped.pricing_currency <> grouped.currency and grouped.pricing_contracted_unit_price is not null, false
        ) as is_exchanged,
        concat_ws('-', 'INV', strftime(billing_period, '%Y-%m'), billing_account_id, currency, nullif(booking, 1))
            as invoice_id,
        case when line_kind = 'original' then 'usage' else 'correction' end as invoice_section
    from grouped
),

-- What FOCUS wants of usage and purchases: a price and its id, and cost is price times quantity, to the last digit. A tier,
-- a package or a share of a month has no price of its units: such a purchase is one unit at what it costs. Usage that a
-- plan pays for, or that was written off, and that nobody lists a price of, is listed at nothing.
priced as (
    select
        * replace (
            case
                when charge_category = 'Purchase' then abs(list_cost)
                when charge_category = 'Usage' then coalesce(list_unit_price, 0)
                else list_unit_price
            end as list_unit_price,
            case
                when charge_category = 'Purchase' then abs(contracted_cost)
                when charge_category = 'Usage' then coalesce(contracted_unit_price, 0)
                else contracted_unit_price
            end as contracted_unit_price,
            case
                when charge_category <> 'Purchase' then pricing_quantity
                when list_cost < 0 then -1
                else 1
            end as pricing_quantity,
            case when charge_category = 'Purchase' then 'Units' else pricing_unit end as pricing_unit
        ),
        case
            when charge_category = 'Purchase'
                then concat(description, ', ', cast(cast(pricing_quantity as bigint) as varchar), ' ', pricing_unit)
        end as purchase,
        case
            when charge_category = 'Purchase' then concat(contract_rate_id, '@', rtrim(cast(abs(list_cost) as varchar), '0'))
            when list_unit_price is not null then coalesce(price_id, contract_rate_id)
            when charge_category = 'Usage' then case when settlement_id is null then 'included' else 'written-off' end
        end as sku_price_id
    from invoiced
)

select
    cast(invoiced.billed_cost as decimal(38, 15)) as "BilledCost",
    invoiced.billing_account_id as "BillingAccountId",
    accounts.name as "BillingAccountName",
    invoiced.currency as "BillingCurrency",
    {{ utc_midnight(next_month('invoiced.billing_period')) }} as "BillingPeriodEnd",
    {{ utc_midnight('invoiced.billing_period') }} as "BillingPeriodStart",
    invoiced.charge_category as "ChargeCategory",
    case when invoiced.line_kind <> 'original' then 'Correction' end as "ChargeClass",
    coalesce(
        invoiced.purchase,
        invoiced.description,
        concat(
            invoiced.component, ' tokens of ', invoiced.model,
            case invoiced.model_basis
                when 'session' then ', which the session used'
                when 'default' then ', the default where no model is known'
            end
        )
    ) as "ChargeDescription",
    invoiced.charge_frequency as "ChargeFrequency",
    {{ utc_midnight('invoiced.charge_end_date') }} as "ChargePeriodEnd",
    {{ utc_midnight('invoiced.charge_start_date') }} as "ChargePeriodStart",
    cast(invoiced.consumed_quantity as decimal(38, 6)) as "ConsumedQuantity",
    invoiced.consumed_unit as "ConsumedUnit",
    cast(invoiced.contracted_cost as decimal(38, 15)) as "ContractedCost",
    cast(invoiced.contracted_unit_price as decimal(38, 15)) as "ContractedUnitPrice",
    cast(invoiced.effective_cost as decimal(38, 15)) as "EffectiveCost",
    coalesce(invoiced.provider_name, '{{ var("invoice_issuer") }}') as "HostProviderName",
    concat_ws(
        '/', invoiced.invoice_id, invoiced.charge_category, invoiced.invoice_section,
        coalesce(invoiced.provider_name, '-'), coalesce(invoiced.model, '-')
    ) as "InvoiceDetailId",
    invoiced.invoice_id as "InvoiceId",
    '{{ var("invoice_issuer") }}' as "InvoiceIssuerName",
    cast(invoiced.list_cost as decimal(38, 15)) as "ListCost",
    cast(invoiced.list_unit_price as decimal(38, 15)) as "ListUnitPrice",
    case
        when invoiced.charge_category = 'Purchase' then 'Other'
        -- A discount that was agreed is no commitment.
        when invoiced.charge_category = 'Usage' then 'Standard'
    end as "PricingCategory",
    -- Of another currency than the bill's; a unit price that was agreed is in the bill's.
    case when invoiced.is_exchanged then invoiced.pricing_currency else invoiced.currency end as "PricingCurrency",
    cast(
        case
            when invoiced.is_exchanged then invoiced.pricing_contracted_unit_price
            else invoiced.contracted_unit_price
        end as decimal(38, 15)
    ) as "PricingCurrencyContractedUnitPrice",
    case
        when not invoiced.is_exchanged then cast(invoiced.effective_cost as decimal(38, 15))
        when invoiced.billed_cost = 0 then cast(0 as decimal(38, 15))
        else cast(invoiced.pricing_quantity * invoiced.pricing_contracted_unit_price as decimal(38, 15))
    end as "PricingCurrencyEffectiveCost",
    cast(
        case when invoiced.is_exchanged then invoiced.pricing_unit_price else invoiced.list_unit_price end
        as decimal(38, 15)
    ) as "PricingCurrencyListUnitPrice",
    cast(invoiced.pricing_quantity as decimal(20, 6)) as "PricingQuantity",
    invoiced.pricing_unit as "PricingUnit",
    'AI and Machine Learning' as "ServiceCategory",
    'Agent usage' as "ServiceName",
    '{{ var("invoice_issuer") }}' as "ServiceProviderName",
    'Generative AI' as "ServiceSubcategory",
    case
        when invoiced.charge_category = 'Usage'
            then concat_ws('/', coalesce(invoiced.provider_name, '-'), coalesce(invoiced.model, '-'))
        else concat_ws('/', 'plan', invoiced.component)
    end as "SkuId",
    invoiced.component as "SkuMeter",
    case
        when invoiced.charge_category = 'Usage'
            then {{ json_object_of({'x_Model': 'invoiced.model', 'x_TokenType': 'invoiced.component'}) }}
    end as "SkuPriceDetails",
    invoiced.sku_price_id as "SkuPriceId",
    invoiced.user_id as "SubAccountId",
    invoiced.user_id as "SubAccountName",
    case when invoiced.user_id is not null then 'User' end as "SubAccountType",
    invoiced.colony_id as "x_ColonyId",
    invoiced.contract_rate_id as "x_ContractRateId",
    cast(invoiced.events as bigint) as "x_EventCount",
    strftime(invoiced.incurred_period, '%Y-%m') as "x_IncurredPeriod",
    invoiced.model as "x_Model",
    -- A line that an earlier version sealed does not say it.
    case
        when invoiced.charge_category = 'Usage' then coalesce(
            invoiced.model_basis, case when invoiced.model = 'unknown' then 'unknown' else 'reported' end
        )
    end as "x_ModelBasis",
    strftime(invoiced.original_period, '%Y-%m') as "x_OriginalPeriod",
    -- The book's beginning stands for a price that its source does not date.
    case when prices.valid_from > {{ beginning_of_the_book() }} then prices.valid_from end as "x_PriceValidFrom",
    invoiced.queen_id as "x_QueenId",
    invoiced.rated_as_of as "x_RatedAsOf",
    case when invoiced.line_kind <> 'original' then concat(invoiced.line_kind, ':', invoiced.cause) end as "x_ReasonCode",
    invoiced.root_session_id as "x_RootSessionId",
    invoiced.row_key as "x_RowKey",
    invoiced.session_id as "x_SessionId",
    invoiced.tenant_id as "x_TenantId",
    case when invoiced.charge_category = 'Usage' then invoiced.component end as "x_TokenType",
    invoiced.trust_grade as "x_TrustGrade",
    invoiced.tenant_id,
    invoiced.charge_start_date as usage_date,
    invoiced.billing_period,
    invoiced._booking_seq
from priced as invoiced
left join accounts using (billing_account_id)
left join {{ ref('dim_prices') }} as prices using (price_id)
