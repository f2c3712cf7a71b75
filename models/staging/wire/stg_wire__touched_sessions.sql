with source as (
    select * from {{ source('wire', 'touched_sessions') }}
),

superseded as (
    select * from {{ ref('stg_wire__superseded_records') }}
)

select
    tenant_id,
    session_id,
    _ingest_seq
from source
union all
-- Which row of a pair is left out may change with either: both of their sessions are looked at again.
{%- for session_id in ['renamed_session_id', 'first_session_id'] %}
select
    tenant_id,
    {{ session_id }} as session_id,
    _ingest_seq
from superseded
{%- if not loop.last %}
union all
{%- endif %}
{%- endfor %}
union all
-- Whether a copied step counts depends on the events of the session that it was copied from.
select
    forks.tenant_id,
    forks.session_id,
    source._ingest_seq
from source
inner join {{ ref('stg_wire__fork_ancestors') }} as forks
    on source.tenant_id = forks.tenant_id
    and source.session_id = forks.ancestor_id
