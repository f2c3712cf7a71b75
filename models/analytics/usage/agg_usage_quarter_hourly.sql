{{
    config(
        materialized='incremental',
        meta={'replace': {'keys': ['tenant_id', 'usage_date'], 'changed': 'changed_usage_days'}}
    )
}}

with changed as (
    {{ changed_usage_days() }}
),

{{ usage_measures(is_judged=true) }},

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
        {{ usage_sums('quarters') }},
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
