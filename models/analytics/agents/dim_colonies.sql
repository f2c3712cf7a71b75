with colonies as (
    select * from {{ ref('int_colonies__observations_merged') }}
),

sessions as (
    select
        tenant_id,
        colony_id,
        count(*) as sessions
    from {{ ref('int_sessions__tree_resolved') }}
    where colony_id is not null
    group by tenant_id, colony_id
)

select
    colonies.colony_id,
    colonies.tenant_id,
    colonies.colony_name,
    colonies.queen_name,
    colonies.colony_id as queen_session_id,
    colonies.source_session_id,
    colonies.worker_count,
    colonies.max_concurrent_workers,
    coalesce(sessions.sessions, 0) as sessions,
    colonies.has_progress_db,
    colonies.created_at,
    colonies.updated_at
from colonies
left join sessions using (tenant_id, colony_id)
