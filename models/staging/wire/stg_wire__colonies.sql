with source as (
    select * from {{ source('wire', 'colonies') }}
)

select
    record_id,
    tenant_id,
    {{ agent_runtime('agent_runtime') }} as agent_runtime,
    queen_session_id as colony_id,
    source_session_id,
    colony_name,
    queen_name,
    worker_count,
    max_concurrent_workers,
    has_progress_db,
    created_at,
    updated_at,
    observed_at
from source
