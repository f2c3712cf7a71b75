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
        pairs.time_zone,
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
        judged.tool_name,
        judged.waste_kind,
        1 as turns,
        t.input_tokens,
        t.cache_read_input_tokens,
        t.cache_write_input_tokens,
        t.output_tokens,
        0 as tool_calls,
        0 as tool_errors,
        case when t.reported_cost_usd is null then 1 else 0 end as unreported_turns,
        case when t.reported_cost_usd is null then t.input_tokens + t.output_tokens else 0 end as unreported_tokens,
        case when rated.rated_cost_usd is null then 1 else 0 end as unpriced_turns,
        rated.unpriced_tokens,
        t.reported_cost_usd,
        rated.rated_cost_usd,
        rated.rated_cost_low_usd,
        rated.rated_cost_high_usd,
        t.usage_date,
        t.occurred_at
    from {{ ref('fct_rated_turns') }} as rated
    inner join changed using (tenant_id, usage_date)
    inner join {{ ref('fct_llm_turns') }} as t using (tenant_id, turn_id)
    inner join {{ ref('int_usage__turns_judged') }} as judged using (tenant_id, turn_id)
),

tool_calls as (
    select
        tenant_id,
        session_id,
        agent_kind,
        agent_runtime,
        model,
        coalesce(tool_name, 'unknown') as tool_name,
        'none' as waste_kind,
        0 as turns,
        0 as input_tokens,
        0 as cache_read_input_tokens,
        0 as cache_write_input_tokens,
        0 as output_tokens,
        1 as tool_calls,
        case when is_error then 1 else 0 end as tool_errors,
        0 as unreported_turns,
        0 as unreported_tokens,
        0 as unpriced_turns,
        0 as unpriced_tokens,
        cast(null as decimal(38, 20)) as reported_cost_usd,
        cast(null as decimal(38, 20)) as rated_cost_usd,
        cast(null as decimal(38, 20)) as rated_cost_low_usd,
        cast(null as decimal(38, 20)) as rated_cost_high_usd,
        usage_date,
        occurred_at
    from {{ ref('fct_tool_calls') }}
),

-- One under the other, never joined: a quarter may have calls and no turns, or turns and no calls.
measures as (
    select * from turns
    union all
    select * from tool_calls
),

-- Every zone of the last fifty years is a whole number of quarters from UTC, summer time included: a quarter lies in
-- one hour, day, week and month of any of them. An hour would not.
quarters as (
    select
        session_days.user_id,
        session_days.colony_id,
        session_days.time_zone,
        session_days._ingest_seq,
        session_days._rating_seq,
        measures.*,
        {{ bucket_of('measures.occurred_at', 15) }} as quarter_at
    from session_days
    inner join measures using (tenant_id, session_id, usage_date)
),

summed as (
    select
        tenant_id,
        session_id,
        user_id,
        colony_id,
        time_zone,
        agent_kind,
        agent_runtime,
        model,
        tool_name,
        waste_kind,
        cast(sum(turns) as bigint) as turns,
        cast(sum(input_tokens) as bigint) as input_tokens,
        cast(sum(cache_read_input_tokens) as bigint) as cache_read_input_tokens,
        cast(sum(cache_write_input_tokens) as bigint) as cache_write_input_tokens,
        cast(sum(output_tokens) as bigint) as output_tokens,
        cast(sum(tool_calls) as bigint) as tool_calls,
        cast(sum(tool_errors) as bigint) as tool_errors,
        cast(sum(unreported_turns) as bigint) as unreported_turns,
        cast(sum(unreported_tokens) as bigint) as unreported_tokens,
        cast(sum(unpriced_turns) as bigint) as unpriced_turns,
        cast(sum(unpriced_tokens) as bigint) as unpriced_tokens,
        sum(reported_cost_usd) as reported_cost_usd,
        sum(rated_cost_usd) as rated_cost_usd,
        sum(rated_cost_low_usd) as rated_cost_low_usd,
        sum(rated_cost_high_usd) as rated_cost_high_usd,
        usage_date,
        quarter_at,
        max(_ingest_seq) as _ingest_seq,
        max(_rating_seq) as _rating_seq
    from quarters
    group by
        tenant_id,
        session_id,
        user_id,
        colony_id,
        time_zone,
        agent_kind,
        agent_runtime,
        model,
        tool_name,
        waste_kind,
        usage_date,
        quarter_at
),

clocks as (
    select
        *,
        {{ local_time('quarter_at', "'UTC'") }} as utc_clock,
        {{ local_time('quarter_at', 'time_zone') }} as zone_clock
    from summed
)

select
    tenant_id,
    session_id,
    user_id,
    colony_id,
    agent_kind,
    agent_runtime,
    model,
    tool_name,
    waste_kind,
    time_zone,
    turns,
    input_tokens,
    cache_read_input_tokens,
    cache_write_input_tokens,
    output_tokens,
    tool_calls,
    tool_errors,
    unreported_turns,
    unreported_tokens,
    unpriced_turns,
    unpriced_tokens,
    cast(date_diff('minute', utc_clock, zone_clock) as bigint) as zone_offset_minutes,
    reported_cost_usd,
    rated_cost_usd,
    rated_cost_low_usd,
    rated_cost_high_usd,
    usage_date,
    cast(date_trunc('week', usage_date) as date) as usage_week_date,
    cast(date_trunc('month', usage_date) as date) as usage_month_date,
    cast(zone_clock as date) as zone_date,
    cast(date_trunc('week', zone_clock) as date) as zone_week_date,
    cast(date_trunc('month', zone_clock) as date) as zone_month_date,
    date_trunc('hour', utc_clock) as usage_hour,
    date_trunc('hour', zone_clock) as zone_hour,
    quarter_at,
    _ingest_seq,
    _rating_seq
from clocks
