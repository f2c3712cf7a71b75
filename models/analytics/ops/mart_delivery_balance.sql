with days as (
    select * from {{ ref('int_delivery__device_days') }}
)

select
    tenant_id,
    device_id,
    lines_seen,
    lines_staged,
    lines_duplicate,
    lines_skipped,
    lines_rejected,
    lines_before_consent,
    lines_seen - lines_staged - lines_duplicate - lines_skipped - lines_rejected - lines_before_consent
        as lines_unexplained,
    batches,
    rows_staged,
    rows_loaded,
    rows_duplicate,
    rows_conflict,
    rows_quarantined,
    rows_suppressed,
    rows_dropped,
    rows_staged - rows_loaded - rows_duplicate - rows_conflict - rows_quarantined - rows_suppressed - rows_dropped
        as rows_unexplained,
    tokens_staged,
    tokens_loaded,
    tokens_duplicate,
    tokens_conflict,
    tokens_quarantined,
    tokens_suppressed,
    tokens_dropped,
    tokens_staged - tokens_loaded - tokens_duplicate - tokens_conflict - tokens_quarantined - tokens_suppressed
    - tokens_dropped as tokens_unexplained,
    delivery_date
from days
