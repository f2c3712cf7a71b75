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

known as (
    select *
    from ranked
    where recency = 1
),

-- The kind of list stands with the forks and not as a condition on one side of the next join: that would make it a
-- nested loop over tasks and sessions.
forks as (
    select
        tenant_id,
        session_id,
        forked_from_session_id,
        'session' as list_kind
    from {{ ref('int_sessions__observations_merged') }}
    where forked_from_session_id is not null
),

-- A fork copies its parent's list: a task that the parent's list has is the parent's, however either went on with it.
-- The parent of a fork of a fork has its copy too.
latest as (
    select known.*
    from known
    left join forks
        on known.tenant_id = forks.tenant_id
        and known.list_id = forks.session_id
        and known.list_kind = forks.list_kind
    left join known as inherited
        on known.tenant_id = inherited.tenant_id
        and forks.forked_from_session_id = inherited.list_id
        and forks.list_kind = inherited.list_kind
        and known.item = inherited.item
        and known.task_id = inherited.task_id
        and known.created_at = inherited.created_at
    where inherited.task_id is null
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
    {{ task_state('latest.status') }} as state,
    latest.created_by,
    latest.blocks_ids,
    latest.blocked_by_ids,
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
