{{
    config(
        materialized='incremental',
        meta={'replace': {'keys': ['tenant_id', 'usage_date'], 'changed': 'changed_usage_days'}}
    )
}}

with changed as (
    {{ changed_usage_days() }}
),

session_days as (
    select
        pairs.tenant_id,
        pairs.session_id,
        pairs.user_id,
        pairs.colony_id,
        pairs.usage_date,
        changed._ingest_seq,
        changed._rating_seq
    from {{ ref('int_analytics__session_days') }} as pairs
    inner join changed using (tenant_id, usage_date)
),

turns as (
    select
        rated.tenant_id,
        t.session_id,
        t.agent_kind,
        t.agent_runtime,
        t.model,
        1 as turns,
        t.input_tokens,
        t.cache_read_input_tokens,
        t.cache_write_input_tokens,
        t.output_tokens,
        0 as tool_calls,
        case when t.reported_cost_usd is null then 1 else 0 end as unreported_turns,
        case when rated.rated_cost_usd is null then 1 else 0 end as unpriced_turns,
        rated.unpriced_tokens,
        t.reported_cost_usd,
        rated.rated_cost_usd,
        rated.rated_cost_low_usd,
        rated.rated_cost_high_usd,
        t.usage_date
    from {{ ref('fct_rated_turns') }} as rated
    inner join changed using (tenant_id, usage_date)
    inner join {{ ref('fct_llm_turns') }} as t using (tenant_id, turn_id)
),

tool_calls as (
    select
        tenant_id,
        session_id,
        agent_kind,
        agent_runtime,
        model,
        0 as turns,
        0 as input_tokens,
        0 as cache_read_input_tokens,
        0 as cache_write_input_tokens,
        0 as output_tokens,
        1 as tool_calls,
        0 as unreported_turns,
        0 as unpriced_turns,
        0 as unpriced_tokens,
        cast(null as decimal(38, 20)) as reported_cost_usd,
        cast(null as decimal(38, 20)) as rated_cost_usd,
        cast(null as decimal(38, 20)) as rated_cost_low_usd,
        cast(null as decimal(38, 20)) as rated_cost_high_usd,
        usage_date
    from {{ ref('fct_tool_calls') }}
),

-- One under the other, never joined: a day may have calls and no turns, or turns and no calls.
measures as (
    select * from turns
    union all
    select * from tool_calls
)

select
    session_days.tenant_id,
    session_days.session_id,
    session_days.user_id,
    session_days.colony_id,
    measures.agent_kind,
    measures.agent_runtime,
    measures.model,
    cast(sum(measures.turns) as bigint) as turns,
    cast(sum(measures.input_tokens) as bigint) as input_tokens,
    cast(sum(measures.cache_read_input_tokens) as bigint) as cache_read_input_tokens,
    cast(sum(measures.cache_write_input_tokens) as bigint) as cache_write_input_tokens,
    cast(sum(measures.output_tokens) as bigint) as output_tokens,
    cast(sum(measures.tool_calls) as bigint) as tool_calls,
    cast(sum(measures.unreported_turns) as bigint) as unreported_turns,
    cast(sum(measures.unpriced_turns) as bigint) as unpriced_turns,
    cast(sum(measures.unpriced_tokens) as bigint) as unpriced_tokens,
    sum(measures.reported_cost_usd) as reported_cost_usd,
    sum(measures.rated_cost_usd) as rated_cost_usd,
    sum(measures.rated_cost_low_usd) as rated_cost_low_usd,
    sum(measures.rated_cost_high_usd) as rated_cost_high_usd,
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
