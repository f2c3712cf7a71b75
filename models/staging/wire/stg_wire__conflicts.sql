with source as (
    select * from {{ source('wire', 'conflicts') }}
)

select
    tenant_id,
    record_id,
    _ingest_seq
from source
where table_name in ('llm_turns', 'node_steps')
