{{ config(materialized='table') }}

with recursive holders as (
    select distinct
        tenant_id,
        session_id
    from {{ source('wire', 'node_steps') }}
),

forks as (
    select distinct
        tenant_id,
        session_id,
        forked_from_session_id
    from {{ source('wire', 'sessions') }}
    where forked_from_session_id <> session_id
),

walk as (
    {{ walk_up('walk', starts='holders', edges='forks', parent='forked_from_session_id') }}
)

select distinct
    tenant_id,
    session_id,
    ancestor_id
from walk
where ancestor_id <> session_id
