{{
    config(
        materialized='incremental',
        meta={'replace': {'keys': ['tenant_id', 'activity_date'], 'changed': 'changed_activity_days'}}
    )
}}

with changed as (
    {{ changed_activity_days() }}
),

exits as (
    select
        e.*,
        changed._ingest_seq as changed_seq
    from {{ ref('fct_node_exits') }} as e
    inner join changed
        on e.tenant_id = changed.tenant_id
        and e.exit_date = changed.activity_date
),

events as (
    select
        e.*,
        coalesce(e.node_id, 'unknown') as node,
        changed._ingest_seq as changed_seq
    from {{ ref('fct_status_events') }} as e
    inner join changed
        on e.tenant_id = changed.tenant_id
        and e.event_date = changed.activity_date
    where e.kind in ('judged', 'retried', 'stalled')
        -- A parallel worker's node bears the id of its session: one row for each worker would tell nothing of nodes.
        and e.node_id is distinct from e.session_id
),

-- A graph run is judged twice, in its L2 line and in its events. The line sums up what the events say one by one.
logged_sessions as (
    select distinct tenant_id, session_id
    from {{ ref('fct_node_exits') }}
),

measures as (
    select
        tenant_id,
        node_id as node,
        1 as exits,
        case when is_success then 1 else 0 end as successes,
        case when exit_status = 'stalled' then 1 else 0 end as stalls,
        case when coalesce(needs_attention, false) then 1 else 0 end as attention_exits,
        case when coalesce(attempt, 1) > 1 then 1 else 0 end as repeated_exits,
        coalesce(accept_count, 0) as accepts,
        coalesce(retry_count, 0) as retries,
        coalesce(escalate_count, 0) as escalations,
        coalesce(continue_count, 0) as continues,
        0 as provider_retries,
        total_steps,
        latency_ms,
        exit_date as activity_date,
        changed_seq
    from exits
    union all
    select
        events.tenant_id,
        events.node,
        0 as exits,
        0 as successes,
        case when events.kind = 'stalled' then 1 else 0 end as stalls,
        0 as attention_exits,
        0 as repeated_exits,
        case when events.verdict = 'ACCEPT' and logged.session_id is null then 1 else 0 end as accepts,
        case when events.verdict = 'RETRY' and logged.session_id is null then 1 else 0 end as retries,
        case when events.verdict = 'ESCALATE' and logged.session_id is null then 1 else 0 end as escalations,
        case when events.verdict = 'CONTINUE' and logged.session_id is null then 1 else 0 end as continues,
        case when events.kind = 'retried' then 1 else 0 end as provider_retries,
        cast(null as bigint) as total_steps,
        cast(null as bigint) as latency_ms,
        events.event_date as activity_date,
        events.changed_seq
    from events
    left join logged_sessions as logged
        on events.tenant_id = logged.tenant_id
        and events.session_id = logged.session_id
)

select
    tenant_id,
    node as node_id,
    cast(sum(exits) as bigint) as exits,
    cast(sum(successes) as bigint) as successes,
    cast(sum(stalls) as bigint) as stalls,
    cast(sum(attention_exits) as bigint) as attention_exits,
    cast(sum(repeated_exits) as bigint) as repeated_exits,
    cast(sum(accepts) as bigint) as accepts,
    cast(sum(retries) as bigint) as retry_verdicts,
    cast(sum(escalations) as bigint) as escalations,
    cast(sum(continues) as bigint) as continues,
    cast(sum(provider_retries) as bigint) as provider_retries,
    cast(sum(total_steps) as bigint) as steps,
    cast(sum(latency_ms) as bigint) as latency_ms,
    min(latency_ms) as latency_min_ms,
    {{ quantile('latency_ms', '0.5') }} as latency_p50_ms,
    {{ quantile('latency_ms', '0.95') }} as latency_p95_ms,
    {{ quantile('latency_ms', '0.99') }} as latency_p99_ms,
    max(latency_ms) as latency_max_ms,
    activity_date,
    max(changed_seq) as _ingest_seq
from measures
group by tenant_id, node, activity_date
