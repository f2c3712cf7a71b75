with source as (
    select * from {{ source('wire', 'tasks') }}
)

select
    record_id,
    tenant_id,
    {{ agent_runtime('agent_runtime') }} as agent_runtime,
    list_id,
    task_id,
    -- A task is named by its own id: loaded before the gate refused another one.
    case when item <> 'task' then item_id end as item_id,
    parent_task_id,
    worker_id,
    colony_name,
    item,
    list_kind,
    status,
    created_by,
    blocks_ids,
    blocked_by_ids,
    error_class,
    seq,
    priority,
    retry_count,
    max_retries,
    blocks_count,
    blocked_by_count,
    observation,
    is_required,
    created_at,
    claimed_at,
    started_at,
    completed_at,
    updated_at,
    observed_at
from source
