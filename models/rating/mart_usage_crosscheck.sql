{{
    config(
        materialized='incremental',
        meta={'replace': {'keys': ['tenant_id', 'session_id'], 'changed': 'changed_sessions'}}
    )
}}

with changed as (
    {{ changed_sessions() }}
),

-- Each level counts the whole session in its own words. Summaries are written again with every run and may be stale:
-- the largest is the last.
levels as (
    select 'event' as level, tenant_id, session_id, sum(input_tokens + output_tokens) as tokens
    from {{ ref('stg_wire__llm_turns') }}
    group by tenant_id, session_id
    union all
    select 'step' as level, tenant_id, session_id, sum(input_tokens + output_tokens) as tokens
    from {{ ref('stg_wire__node_steps') }}
    where step_index >= 0
    group by tenant_id, session_id
    union all
    select 'detail' as level, tenant_id, session_id, sum(input_tokens + output_tokens) as tokens
    from {{ ref('stg_wire__node_details') }}
    group by tenant_id, session_id
    union all
    select 'summary' as level, tenant_id, session_id, max(total_input_tokens + total_output_tokens) as tokens
    from {{ ref('stg_wire__run_summaries') }}
    group by tenant_id, session_id
),

compared as (
    select
        levels.tenant_id,
        levels.session_id,
        max(levels.tokens) filter (where levels.level = 'event') as event_tokens,
        max(levels.tokens) filter (where levels.level = 'step') as step_tokens,
        max(levels.tokens) filter (where levels.level = 'detail') as detail_tokens,
        max(levels.tokens) filter (where levels.level = 'summary') as summary_tokens,
        count(levels.tokens) as levels,
        min(levels.tokens) as least_tokens,
        max(levels.tokens) as most_tokens,
        max(changed._ingest_seq) as _ingest_seq
    from levels
    inner join changed using (tenant_id, session_id)
    -- A summary that was cut off while it was written says nothing.
    where levels.tokens is not null
    group by levels.tenant_id, levels.session_id
)

select
    tenant_id,
    session_id,
    cast(event_tokens as bigint) as event_tokens,
    cast(step_tokens as bigint) as step_tokens,
    cast(detail_tokens as bigint) as detail_tokens,
    cast(summary_tokens as bigint) as summary_tokens,
    cast(levels as bigint) as levels,
    cast(most_tokens - least_tokens as bigint) as difference_tokens,
    levels > 1 and most_tokens = least_tokens as is_corroborated,
    _ingest_seq
from compared
