with colonies as (
    select * from {{ ref('stg_wire__colonies') }}
),

ranked as (
    select
        *,
        row_number() over (
            partition by tenant_id, colony_id order by observed_at nulls first, record_id
        ) as observation_position
    from colonies
)

select
    colony_id,
    tenant_id,
    {{ latest('colony_name', 'observation_position') }} as colony_name,
    {{ latest('queen_name', 'observation_position') }} as queen_name,
    {{ latest('source_session_id', 'observation_position') }} as source_session_id,
    {{ latest('worker_count', 'observation_position') }} as worker_count,
    {{ latest('max_concurrent_workers', 'observation_position') }} as max_concurrent_workers,
    {{ latest('has_progress_db', 'observation_position') }} as has_progress_db,
    min(created_at) as created_at,
    {{ latest('updated_at', 'observation_position') }} as updated_at
from ranked
group by tenant_id, colony_id
