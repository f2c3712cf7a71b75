with recursive sessions as (
    select * from {{ ref('int_sessions__observations_merged') }}
),

{{ ancestors_of_sessions() }}

select
    tenant_id,
    session_id,
    ancestor_id,
    depth,
    path
from ancestors
