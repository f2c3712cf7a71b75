with tasks as (
    select * from {{ ref('fct_tasks') }}
),

observations as (
    select
        o.*,
        {{ task_state('o.status') }} as state
    from {{ ref('stg_wire__tasks') }} as o
    -- What a fork only copied has no row of its own.
    inner join tasks
        on o.tenant_id = tasks.tenant_id
        and o.list_kind = tasks.list_kind
        and o.list_id = tasks.list_id
        and o.item = tasks.item
        and o.task_id = tasks.task_id
        and o.item_id is not distinct from tasks.item_id
),

-- One observation tells of up to three states: its times say when a task was made, claimed and finished.
told as (
    select tenant_id, list_kind, list_id, item, task_id, item_id, 'open' as state, 'created' as evidence,
        cast(null as varchar) as worker_id, cast(null as bigint) as retry_count, created_at as changed_at
    from observations
    where created_at is not null
    union all
    select tenant_id, list_kind, list_id, item, task_id, item_id, 'working' as state, 'claimed' as evidence,
        worker_id, retry_count, coalesce(claimed_at, started_at) as changed_at
    from observations
    where coalesce(claimed_at, started_at) is not null
    union all
    select tenant_id, list_kind, list_id, item, task_id, item_id, state, 'observed' as evidence,
        worker_id, retry_count,
        case
            when state in ('done', 'failed') then coalesce(completed_at, updated_at, observed_at)
            when state = 'working' then coalesce(claimed_at, started_at, updated_at, observed_at)
            else coalesce(updated_at, created_at, observed_at)
        end as changed_at
    from observations
    union all
    select
        e.tenant_id,
        tasks.list_kind,
        tasks.list_id,
        tasks.item,
        tasks.task_id,
        tasks.item_id,
        case e.kind when 'task_deleted' then 'deleted' else {{ task_state('e.task_status') }} end as state,
        'event' as evidence,
        cast(null as varchar) as worker_id,
        cast(null as bigint) as retry_count,
        e.occurred_at as changed_at
    from {{ ref('stg_wire__status_events') }} as e
    inner join tasks
        on e.tenant_id = tasks.tenant_id
        and e.session_id = tasks.list_id
        and e.task_id = tasks.task_id
        and tasks.list_kind = 'session'
        and tasks.item = 'task'
    where e.kind in ('task_created', 'task_updated', 'task_deleted')
        and (e.task_status is not null or e.kind = 'task_deleted')
        and e.occurred_at is not null
),

-- At one instant the state that is further on counts; of two that say it the one that knows the worker.
ranked as (
    select
        *,
        row_number() over (
            partition by tenant_id, list_kind, list_id, item, task_id, item_id, changed_at
            order by
                case state when 'open' then 1 when 'working' then 2 when 'other' then 3 else 4 end desc,
                worker_id nulls last,
                retry_count desc nulls last,
                state,
                evidence
        ) as position_in_instant
    from told
    where changed_at is not null
),

compared as (
    select
        *,
        lag(state) over item_history as state_before,
        lag(retry_count) over item_history as retry_count_before,
        last_value(worker_id ignore nulls) over (
            partition by tenant_id, list_kind, list_id, item, task_id, item_id
            order by changed_at
            rows between unbounded preceding and 1 preceding
        ) as worker_before
    from ranked
    where position_in_instant = 1
    window item_history as (
        partition by tenant_id, list_kind, list_id, item, task_id, item_id
        order by changed_at
    )
),

changes as (
    select *
    from compared
    where state is distinct from state_before
        or coalesce(retry_count, 0) > coalesce(retry_count_before, retry_count, 0)
        -- Another worker took it over.
        or (state = 'working' and worker_id <> worker_before)
),

numbered as (
    select
        *,
        row_number() over item_history as change_number,
        lead(changed_at) over item_history as changed_again_at
    from changes
    window item_history as (
        partition by tenant_id, list_kind, list_id, item, task_id, item_id
        order by changed_at
    )
)

select
    tenant_id,
    list_id,
    task_id,
    item_id,
    worker_id,
    item,
    list_kind,
    state,
    state_before,
    evidence,
    change_number,
    retry_count,
    {{ seconds_between('changed_at', 'changed_again_at') }} as seconds,
    coalesce(state = 'open' and state_before in ('working', 'done', 'failed'), false) as is_reopened,
    changed_again_at is null as is_current,
    {{ utc_date('changed_at') }} as changed_date,
    changed_at as valid_from,
    changed_again_at as valid_to
from numbered
