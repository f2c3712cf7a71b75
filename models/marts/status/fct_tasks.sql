with tasks as (
    select * from {{ ref('stg_wire__tasks') }}
),

sessions as (
    select * from {{ ref('int_sessions__tree_resolved') }}
),

colonies as (
    select * from {{ ref('int_colonies__observations_merged') }}
),

ranked as (
    select
        *,
        row_number() over (
            partition by tenant_id, list_kind, list_id, item, task_id, item_id
            order by observed_at desc nulls last, observation desc nulls last, record_id desc
        ) as recency
    from tasks
),

latest as (
    select *
    from ranked
    where recency = 1
)

select
    latest.tenant_id,
    latest.list_id,
    latest.task_id,
    latest.item_id,
    latest.parent_task_id,
    latest.worker_id,
    coalesce(colonies.colony_id, sessions.colony_id) as colony_id,
    coalesce(latest.colony_name, colonies.colony_name, sessions.colony_name) as colony_name,
    latest.item,
    latest.list_kind,
    latest.status,
    -- The worker's model writes the status: what it improvises is `other`, never a guess.
    case
        when latest.status = 'pending' then 'open'
        when latest.status in ('claimed', 'in_progress', 'started') then 'working'
        when latest.status in ('done', 'completed') then 'done'
        when latest.status = 'failed' then 'failed'
        else 'other'
    end as state,
    latest.created_by,
    latest.error_class,
    latest.seq,
    latest.priority,
    latest.retry_count,
    latest.max_retries,
    latest.blocks_count,
    latest.blocked_by_count,
    latest.is_required,
    latest.created_at,
    latest.claimed_at,
    latest.started_at,
    latest.completed_at,
    latest.updated_at,
    latest.observed_at as _observed_at
from latest
left join colonies
    on latest.tenant_id = colonies.tenant_id
    and latest.list_id = colonies.colony_id
left join sessions
    on latest.tenant_id = sessions.tenant_id
    and latest.list_id = sessions.session_id
