with changes as (
    select *
    from {{ ref('fct_task_changes') }}
    where item = 'task'
        and list_kind <> 'colony_template'
),

lists as (
    select
        tree.tenant_id,
        tree.session_id,
        tree.colony_id,
        coalesce(colonies.queen_name, observed.queen_name) as queen_name
    from {{ ref('int_sessions__tree_resolved') }} as tree
    inner join {{ ref('int_sessions__observations_merged') }} as observed using (tenant_id, session_id)
    left join {{ ref('int_colonies__observations_merged') }} as colonies using (tenant_id, colony_id)
),

led as (
    select
        changes.*,
        coalesce(lists.colony_id, colonies.colony_id) as colony_id,
        coalesce(lists.queen_name, colonies.queen_name) as queen_name
    from changes
    left join lists
        on changes.tenant_id = lists.tenant_id
        and changes.list_id = lists.session_id
    left join {{ ref('int_colonies__observations_merged') }} as colonies
        on changes.tenant_id = colonies.tenant_id
        and changes.list_id = colonies.colony_id
)

select
    tenant_id,
    colony_id,
    queen_name,
    count(*) filter (where change_number = 1) as created_tasks,
    count(*) filter (where state = 'working' and state_before is distinct from 'working') as claimed_tasks,
    count(*) filter (where state = 'done') as done_tasks,
    count(*) filter (where state = 'failed') as failed_tasks,
    count(*) filter (where is_reopened) as reopened_tasks,
    count(*) filter (where state in ('other', 'deleted')) as dropped_tasks,
    count(seconds) filter (where state = 'open') as left_open_changes,
    {{ quantile('seconds', '0.5', where="state = 'open'") }} as open_p50_seconds,
    {{ quantile('seconds', '0.5', where="state = 'working'") }} as working_p50_seconds,
    {{ quantile('seconds', '0.95', where="state = 'working'") }} as working_p95_seconds,
    changed_date
from led
group by tenant_id, colony_id, queen_name, changed_date
