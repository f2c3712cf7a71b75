{{
    config(
        materialized='incremental',
        meta={'replace': {'keys': ['tenant_id', 'session_id'], 'changed': 'changed_sessions'}}
    )
}}

with changed as (
    {{ changed_sessions() }}
),

turns as (
    select
        tenant_id,
        session_id,
        1 as turns,
        input_tokens,
        cache_read_input_tokens,
        cache_write_input_tokens,
        output_tokens,
        0 as tool_calls,
        case when reported_cost_usd is null then 1 else 0 end as unreported_turns,
        reported_cost_usd,
        occurred_at as turn_at
    from {{ ref('fct_llm_turns') }}
),

tool_calls as (
    select
        tenant_id,
        session_id,
        0 as turns,
        0 as input_tokens,
        0 as cache_read_input_tokens,
        0 as cache_write_input_tokens,
        0 as output_tokens,
        1 as tool_calls,
        0 as unreported_turns,
        cast(null as decimal(38, 20)) as reported_cost_usd,
        cast(null as timestamp with time zone) as turn_at
    from {{ ref('fct_tool_calls') }}
),

measures as (
    select * from turns
    union all
    select * from tool_calls
)

select
    measures.tenant_id,
    measures.session_id,
    cast(sum(measures.turns) as bigint) as turns,
    cast(sum(measures.input_tokens) as bigint) as input_tokens,
    cast(sum(measures.cache_read_input_tokens) as bigint) as cache_read_input_tokens,
    cast(sum(measures.cache_write_input_tokens) as bigint) as cache_write_input_tokens,
    cast(sum(measures.output_tokens) as bigint) as output_tokens,
    cast(sum(measures.tool_calls) as bigint) as tool_calls,
    cast(sum(measures.unreported_turns) as bigint) as unreported_turns,
    sum(measures.reported_cost_usd) as reported_cost_usd,
    min(measures.turn_at) as first_turn_at,
    max(measures.turn_at) as last_turn_at,
    max(changed._ingest_seq) as _ingest_seq
from measures
inner join changed using (tenant_id, session_id)
group by measures.tenant_id, measures.session_id
