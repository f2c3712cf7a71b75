with lines as (
    select * from {{ ref('int_billing__booked_lines') }}
    where line_kind <> 'original'
)

select
    {{ row_key(['tenant_id', 'line_id', 'line_kind', 'billing_period', 'booking', 'seal_seq']) }} as adjustment_id,
    line_id,
    tenant_id,
    billing_account_id,
    line_kind as kind,
    cause,
    currency,
    billed_cost,
    seal_seq is not null as is_sealed,
    charge_start_date as usage_date,
    incurred_period,
    original_period,
    billing_period
from lines
