-- Rounded once per invoice: the payable amount is the rounded sum. It is spread over the lines by largest remainder, so
-- the lines add up to it and none is off by a whole minor unit. Usage without an account is owed by nobody.
with rows_of_invoices as (
    select * from {{ ref('export_focus_daily') }}
    where "BillingAccountId" <> 'UNATTRIBUTED'
),

exact as (
    select
        "InvoiceId" as invoice_id,
        "InvoiceDetailId" as invoice_detail_id,
        "BillingAccountId" as billing_account_id,
        min("x_TenantId") as tenant_id,
        "BillingCurrency" as currency,
        "ChargeCategory" as charge_category,
        "HostProviderName" as provider_name,
        min("x_Model") as model,
        -- A reversal counts its lines as negative events; it is made of lines all the same.
        sum(abs("x_EventCount")) as line_count,
        sum("BilledCost") as exact_amount,
        billing_period
    from rows_of_invoices
    group by
        "InvoiceId", "InvoiceDetailId", "BillingAccountId", "BillingCurrency", "ChargeCategory", "HostProviderName",
        billing_period
),

scaled as (
    select
        *,
        {{ minor_units('exact_amount', 'currency') }} as units
    from exact
),

floored as (
    select
        *,
        {{ whole_minor_units('units') }} as whole_units,
        units - {{ whole_minor_units('units') }} as remainder,
        {{ payable_minor_units('sum(units) over invoice') }}
        - sum({{ whole_minor_units('units') }}) over invoice as spare_units
    from scaled
    window invoice as (partition by invoice_id)
),

spread as (
    select
        *,
        whole_units + case
            when row_number() over (
                partition by invoice_id order by remainder desc, invoice_detail_id
            ) <= spare_units then 1
            else 0
        end as payable_units
    from floored
)

select
    invoice_id,
    invoice_detail_id,
    billing_account_id,
    tenant_id,
    currency,
    charge_category,
    provider_name,
    model,
    cast(line_count as bigint) as line_count,
    cast(exact_amount as decimal(38, 15)) as exact_amount,
    {{ amount_of_minor_units('payable_units', 'currency') }} as rounded_amount,
    cast({{ amount_of_minor_units('payable_units', 'currency') }} - exact_amount as decimal(38, 15)) as rounding_delta,
    billing_period
from spread
