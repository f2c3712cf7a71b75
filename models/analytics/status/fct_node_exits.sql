{{
    config(
        materialized='incremental',
        meta={'replace': {'keys': ['tenant_id', 'session_id'], 'changed': 'changed_sessions'}}
    )
}}

with changed as (
    {{ changed_sessions() }}
),

sessions as (
    select * from {{ ref('int_sessions__observations_merged') }}
),

exits as (
    select
        d.*,
        changed._ingest_seq
    from {{ ref('stg_wire__node_details') }} as d
    inner join changed using (tenant_id, session_id)
),

-- An L2 line has no clock. Its run's tools have: the last one that started did so before the run's last exit.
tool_starts as (
    select
        s.tenant_id,
        s.session_id,
        s.trace_id,
        s.node_id,
        max(s.tool_started_at) as last_tool_at
    from {{ ref('stg_wire__node_steps') }} as s
    inner join changed using (tenant_id, session_id)
    where s.tool_started_at is not null
    group by s.tenant_id, s.session_id, s.trace_id, s.node_id
),

summaries as (
    select
        s.tenant_id,
        s.session_id,
        s.trace_id,
        min(s.started_at) as started_at
    from {{ ref('stg_wire__run_summaries') }} as s
    inner join changed using (tenant_id, session_id)
    group by s.tenant_id, s.session_id, s.trace_id
),

dated as (
    select
        exits.*,
        case
            when tool_starts.last_tool_at is not null then 'tool_start'
            when summaries.started_at is not null then 'run_start'
            when sessions.started_at is not null then 'session_start'
            when exits.file_modified_at is not null then 'file_mtime'
            else 'received'
        end as time_basis,
        coalesce(
            tool_starts.last_tool_at,
            summaries.started_at,
            sessions.started_at,
            exits.file_modified_at,
            exits._received_at
        ) as exited_at
    from exits
    left join tool_starts using (tenant_id, session_id, trace_id, node_id)
    left join summaries using (tenant_id, session_id, trace_id)
    left join sessions using (tenant_id, session_id)
)

select
    node_exit_id,
    tenant_id,
    session_id,
    trace_id,
    coalesce(node_id, 'unknown') as node_id,
    node_type,
    exit_status,
    error_class,
    time_basis,
    total_steps,
    latency_ms,
    attempt,
    accept_count,
    retry_count,
    escalate_count,
    continue_count,
    attention_count,
    is_success,
    needs_attention,
    {{ utc_date('exited_at') }} as exit_date,
    exited_at,
    _ingest_seq
from dated
