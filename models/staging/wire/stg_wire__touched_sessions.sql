with source as (
    select * from {{ source('wire', 'touched_sessions') }}
)

select
    tenant_id,
    session_id,
    _ingest_seq
from source
