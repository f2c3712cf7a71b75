{{
    config(
        materialized='incremental',
        meta={'replace': {'keys': ['tenant_id', 'usage_date'], 'changed': 'changed_days'}}
    )
}}

with changed as (
    {{ changed_days() }}
),

calls as (
    select
        c.*,
        coalesce(c.tool_name, 'unknown') as tool,
        changed._ingest_seq as changed_seq
    from {{ ref('fct_tool_calls') }} as c
    inner join changed using (tenant_id, usage_date)
)

select
    tenant_id,
    agent_kind,
    tool as tool_name,
    count(*) as calls,
    count(*) filter (where is_error) as errors,
    count(distinct session_id) as sessions,
    count(duration_seconds) as timed_calls,
    sum(duration_seconds) as seconds,
    min(duration_seconds) as min_seconds,
    {{ quantile('duration_seconds', '0.5') }} as p50_seconds,
    {{ quantile('duration_seconds', '0.95') }} as p95_seconds,
    {{ quantile('duration_seconds', '0.99') }} as p99_seconds,
    max(duration_seconds) as max_seconds,
    {{ share('count(*) filter (where is_error)', 'count(*)') }} as error_share,
    usage_date,
    max(changed_seq) as _ingest_seq
from calls
group by tenant_id, agent_kind, tool, usage_date
