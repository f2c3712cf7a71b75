{{ config(materialized='view') }}

select
    tenant_id,
    session_id,
    _ingest_seq
from {{ ref('stg_wire__touched_sessions') }}
union all
-- Whether a copied step counts depends on the events of the session that it was copied from.
select
    forks.tenant_id,
    forks.session_id,
    touched._ingest_seq
from {{ ref('stg_wire__touched_sessions') }} as touched
inner join {{ ref('int_sessions__fork_ancestors') }} as forks
    on touched.tenant_id = forks.tenant_id
    and touched.session_id = forks.ancestor_id
