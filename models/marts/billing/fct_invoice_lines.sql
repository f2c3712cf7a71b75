-- Rounded once per group of an invoice's lines, the difference kept: the invoice is the sum of what stands here.
with rows_of_invoices as (
    select * from {{ ref('export_focus_daily') }}
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
        sum("x_EventCount") as line_count,
        sum("BilledCost") as exact_amount,
        billing_period
    from rows_of_invoices
    group by
        "InvoiceId", "InvoiceDetailId", "BillingAccountId", "BillingCurrency", "ChargeCategory", "HostProviderName",
        billing_period
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
    {{ rounded_amount('exact_amount', 'currency') }} as rounded_amount,
    cast({{ rounded_amount('exact_amount', 'currency') }} - exact_amount as decimal(38, 15)) as rounding_delta,
    billing_period
from exact
