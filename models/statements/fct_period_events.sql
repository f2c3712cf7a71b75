with events as (
    select * from {{ ref('stg_billing__period_events') }}
)

select
    billing_accounts,
    status_before,
    status_after,
    actor,
    requested_by,
    reason,
    waived,
    totals_sha256,
    seal_sha256,
    seq,
    billing_period,
    as_of,
    watermark_at,
    grace_until
from events
