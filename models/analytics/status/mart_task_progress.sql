with tasks as (
    select *
    from {{ ref('fct_tasks') }}
    where item = 'task'
),

-- A task's database has no device of its own: what is known of it ends with the last word of any of the tenant's.
clocks as (
    select * from {{ ref('int_tenants__known_as_of') }}
),

parts as (
    select
        tenant_id,
        list_kind,
        list_id,
        task_id,
        count(*) filter (where item = 'step') as steps,
        count(*) filter (where item = 'step' and state = 'done') as steps_done,
        count(*) filter (where item = 'checklist') as checks,
        count(*) filter (where item = 'checklist' and state = 'done') as checks_done,
        count(*) filter (where item = 'checklist' and is_required) as required_checks,
        count(*) filter (where item = 'checklist' and is_required and state = 'done') as required_checks_done
    from {{ ref('fct_tasks') }}
    where item <> 'task'
    group by tenant_id, list_kind, list_id, task_id
),

history as (
    select
        tenant_id,
        list_kind,
        list_id,
        task_id,
        sum(seconds) filter (where state = 'open') as open_seconds,
        sum(seconds) filter (where state = 'working') as working_seconds,
        count(*) filter (where is_reopened) as times_reopened,
        max(retry_count) as retries,
        max(valid_from) as state_since
    from {{ ref('fct_task_changes') }}
    where item = 'task'
    group by tenant_id, list_kind, list_id, task_id
),

blockers as (
    select
        tenant_id,
        list_kind,
        list_id,
        task_id,
        {{ each_of('blocked_by_ids') }} as blocker_id
    from tasks
    where blocked_by_ids is not null
),

-- A blocker that is on no list any more blocks nobody.
blocked as (
    select
        blockers.tenant_id,
        blockers.list_kind,
        blockers.list_id,
        blockers.task_id,
        count(*) as open_blockers
    from blockers
    inner join tasks
        on blockers.tenant_id = tasks.tenant_id
        and blockers.list_kind = tasks.list_kind
        and blockers.list_id = tasks.list_id
        and blockers.blocker_id = tasks.task_id
    where tasks.state in ('open', 'working')
    group by blockers.tenant_id, blockers.list_kind, blockers.list_id, blockers.task_id
)

select
    tasks.tenant_id,
    tasks.list_id,
    tasks.task_id,
    tasks.worker_id,
    tasks.colony_id,
    tasks.list_kind,
    tasks.state,
    tasks.error_class,
    coalesce(blocked.open_blockers, 0) as open_blockers,
    coalesce(tasks.blocks_count, 0) as waiting_tasks,
    coalesce(history.retries, tasks.retry_count, 0) as retries,
    coalesce(history.times_reopened, 0) as times_reopened,
    coalesce(parts.steps, 0) as steps,
    coalesce(parts.steps_done, 0) as steps_done,
    coalesce(parts.checks, 0) as checks,
    coalesce(parts.checks_done, 0) as checks_done,
    coalesce(parts.required_checks, 0) as required_checks,
    coalesce(parts.required_checks_done, 0) as required_checks_done,
    history.open_seconds,
    history.working_seconds,
    tasks.state in ('open', 'working') and coalesce(blocked.open_blockers, 0) > 0 as is_blocked,
    coalesce(parts.required_checks, 0) = coalesce(parts.required_checks_done, 0) as is_checklist_complete,
    coalesce(
        tasks.state = 'working'
        and {{ seconds_between('coalesce(tasks.claimed_at, tasks.updated_at)', 'clocks.known_as_of') }}
            > {{ var('stale_claim_seconds') }},
        false
    ) as is_stale_claim,
    coalesce(tasks.retry_count >= tasks.max_retries, false) as is_at_retry_limit,
    history.state_since,
    clocks.known_as_of
from tasks
left join clocks using (tenant_id)
left join parts using (tenant_id, list_kind, list_id, task_id)
left join history using (tenant_id, list_kind, list_id, task_id)
left join blocked using (tenant_id, list_kind, list_id, task_id)
