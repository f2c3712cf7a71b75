{{
    config(
        materialized='incremental',
        meta={'replace': {'keys': ['tenant_id', 'session_id'], 'changed': 'changed_sessions'}}
    )
}}

with changed as (
    {{ changed_sessions() }}
),

counted as (
    select
        t.tenant_id,
        t.session_id,
        t.model,
        count(*) as turns,
        max(changed._ingest_seq) as changed_seq
    from {{ ref('fct_llm_turns') }} as t
    inner join changed using (tenant_id, session_id)
    group by t.tenant_id, t.session_id, t.model
)

select
    tenant_id,
    session_id,
    {{ latest('model', pair('turns', 'model')) }} as model,
    max(changed_seq) as _ingest_seq
from counted
group by tenant_id, session_id
