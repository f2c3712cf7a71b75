{{
    config(
        materialized='incremental',
        meta={'replace': {'keys': ['tenant_id', 'usage_date'], 'changed': 'changed_usage_or_activity_days'}}
    )
}}

with changed as (
    {{ changed_usage_or_activity_days() }}
),

turns as (
    select
        t.tenant_id,
        t.session_id,
        t.model,
        t.stop_reason,
        cast(null as varchar) as kind,
        t.input_tokens + t.output_tokens as tokens,
        t.usage_date,
        changed._ingest_seq as changed_seq
    from {{ ref('fct_llm_turns') }} as t
    inner join changed using (tenant_id, usage_date)
),

-- A wait without a turn after it was some model's, and nobody can say whose.
waits as (
    select
        e.tenant_id,
        e.session_id,
        coalesce(e.model, 'unknown') as model,
        cast(null as varchar) as stop_reason,
        e.kind,
        cast(null as bigint) as tokens,
        e.event_date as usage_date,
        changed._ingest_seq as changed_seq
    from {{ ref('fct_status_events') }} as e
    inner join changed
        on e.tenant_id = changed.tenant_id
        and e.event_date = changed.usage_date
    where e.kind in ('slow_first_token', 'nudged', 'inactive')
),

rows_of_days as (
    select * from turns
    union all
    select * from waits
),

counted as (
    select
        tenant_id,
        model,
        count(tokens) as turns,
        count(distinct session_id) filter (where tokens is not null) as sessions,
        cast(coalesce(sum(tokens), 0) as bigint) as tokens,
        count(*) filter (where stop_reason = 'stop') as stopped_turns,
        count(*) filter (where stop_reason = 'tool_calls') as tool_turns,
        count(*) filter (where stop_reason = 'length') as cut_turns,
        count(*) filter (where stop_reason = 'cancelled') as cancelled_turns,
        count(*) filter (where kind = 'slow_first_token') as slow_first_tokens,
        count(*) filter (where kind = 'nudged') as nudges,
        count(*) filter (where kind = 'inactive') as broken_streams,
        usage_date,
        max(changed_seq) as _ingest_seq
    from rows_of_days
    group by tenant_id, model, usage_date
)

select
    tenant_id,
    model,
    turns,
    sessions,
    tokens,
    stopped_turns,
    tool_turns,
    cut_turns,
    cancelled_turns,
    slow_first_tokens,
    nudges,
    broken_streams,
    {{ share('turns', 'sum(turns) over (partition by tenant_id, usage_date)') }} as turn_share,
    {{ share('slow_first_tokens', 'turns') }} as slow_first_token_share,
    usage_date,
    _ingest_seq
from counted
