{{
    config(
        materialized='incremental',
        meta={'replace': {'keys': ['tenant_id', 'session_id'], 'changed': 'changed_sessions'}}
    )
}}

with changed as (
    {{ changed_sessions() }}
)

select
    calls.tenant_id,
    calls.session_id,
    calls.tool_name,
    count(*) as calls,
    count(*) filter (where calls.is_error) as errors,
    max(changed._ingest_seq) as _ingest_seq
from {{ ref('fct_tool_calls') }} as calls
inner join changed using (tenant_id, session_id)
where calls.tool_name is not null
group by calls.tenant_id, calls.session_id, calls.tool_name
