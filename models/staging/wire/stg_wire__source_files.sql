with source as (
    select * from {{ source('wire', 'source_files') }}
)

select
    record_id,
    tenant_id,
    source_kind,
    turn_lines_seen,
    turn_lines_duplicate
from source
