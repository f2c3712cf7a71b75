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

-- `union`, not `union all`: forks that name one another in a circle are walked once.
walk as (
    select
        forks.tenant_id,
        forks.session_id,
        forks.forked_from_session_id as ancestor_id
    from forks
    inner join holders
        on forks.tenant_id = holders.tenant_id
        and forks.session_id = holders.session_id
    union
    select
        walk.tenant_id,
        walk.session_id,
        forks.forked_from_session_id as ancestor_id
    from walk
    inner join forks
        on walk.tenant_id = forks.tenant_id
        and walk.ancestor_id = forks.session_id
)

select
    tenant_id,
    session_id,
    ancestor_id
from walk
where ancestor_id <> session_id
