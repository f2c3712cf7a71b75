with days as (
    select *
    from {{ ref('int_delivery__device_days') }}
    where device_id <> 'ERASED'
),

-- Knowledge ends with the last batch of anybody: a device that is silent since is silent until then, as far as we know.
horizon as (
    select max(received_at) as known_as_of
    from {{ ref('stg_wire__batches') }}
),

neighboured as (
    select
        *,
        lead(delivery_date) over (partition by tenant_id, device_id order by delivery_date) as next_date
    from days
)

select
    neighboured.tenant_id,
    neighboured.device_id,
    neighboured.runs,
    neighboured.unreadable_files,
    neighboured.unknown_session_folders,
    neighboured.lines_seen,
    neighboured.lines_staged,
    neighboured.lines_duplicate,
    neighboured.lines_skipped,
    neighboured.lines_rejected,
    neighboured.lines_rejected_torn,
    neighboured.lines_rejected_nul_fill,
    neighboured.lines_rejected_bad_utf8,
    neighboured.lines_rejected_too_long,
    neighboured.lines_rejected_bad_type,
    neighboured.lines_rejected_tail_abandoned,
    neighboured.turn_lines_rejected,
    neighboured.lines_salvaged,
    neighboured.lines_before_consent,
    neighboured.source_lost_bytes,
    neighboured.batches,
    neighboured.rows_staged as rows_sent,
    neighboured.rows_loaded,
    neighboured.rows_dropped,
    cast(
        greatest(
            {{ days_between(
                'neighboured.delivery_date',
                'coalesce(neighboured.next_date - 1, ' ~ utc_date('horizon.known_as_of') ~ ')'
            ) }},
            0
        ) as bigint
    ) as silent_days,
    neighboured.delivery_date,
    horizon.known_as_of
from neighboured
cross join horizon
