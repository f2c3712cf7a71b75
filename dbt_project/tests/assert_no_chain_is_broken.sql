-- A note with names and ages, not a stop: batches come in any order, and a gap is none until it has lasted. What is
-- missing is billed when it comes.
{{ config(severity='warn', meta={'dagster': {'ref': {'name': 'mart_manifest_chain'}}}) }}

select
    tenant_id,
    device_id,
    epoch,
    missing_batches,
    forks,
    rollbacks,
    oldest_gap_at
from {{ ref('mart_manifest_chain') }}
where is_overdue or forks > 0 or rollbacks > 0
