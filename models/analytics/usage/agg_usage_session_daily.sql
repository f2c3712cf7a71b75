{{
    config(
        materialized='incremental',
        meta={'replace': {'keys': ['tenant_id', 'usage_date'], 'changed': 'changed_usage_days'}}
    )
}}

with changed as (
    {{ changed_usage_days() }}
),

{{ usage_measures() }}

select
    session_days.tenant_id,
    session_days.session_id,
    session_days.user_id,
    session_days.colony_id,
    measures.agent_kind,
    measures.agent_runtime,
    measures.model,
    {{ usage_sums('measures', without=['tool_errors', 'unreported_tokens']) }},
    session_days.usage_date,
    max(session_days._ingest_seq) as _ingest_seq,
    max(session_days._rating_seq) as _rating_seq
from session_days
inner join measures using (tenant_id, session_id, usage_date)
group by
    session_days.tenant_id,
    session_days.session_id,
    session_days.user_id,
    session_days.colony_id,
    measures.agent_kind,
    measures.agent_runtime,
    measures.model,
    session_days.usage_date
