with source as (
    select * from {{ source('wire', 'source_files') }}
)

select
    record_id,
    tenant_id,
    {{ agent_runtime('agent_runtime') }} as agent_runtime,
    source_key,
    source_kind,
    source_layout,
    outcome,
    run,
    lines_seen,
    lines_staged,
    lines_duplicate,
    lines_skipped,
    lines_rejected,
    lines_rejected_torn,
    lines_rejected_nul_fill,
    lines_rejected_bad_utf8,
    lines_rejected_too_long,
    lines_rejected_bad_type,
    lines_rejected_tail_abandoned,
    lines_salvaged,
    lines_before_consent,
    turn_lines_seen,
    turn_lines_duplicate,
    turn_lines_rejected,
    source_lost_bytes,
    lines_unknown,
    fields_unknown,
    -- A device without a clock read it when it arrived.
    {{ utc_date('coalesce(observed_at, _received_at)') }} as observed_date,
    _device_id,
    _manifest_key,
    _received_at,
    _ingest_seq
from source
