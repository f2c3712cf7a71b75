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

event_turns as (
    select
        turns.*,
        changed._ingest_seq
    from {{ ref('stg_wire__llm_turns') }} as turns
    inner join changed using (tenant_id, session_id)
    where turns.is_held is not true
),

-- How the source of a turn counts its cache tokens, as somebody said: of the words that are valid at the turn's time the
-- one that names the most, of those the one recorded last.
conventions as (
    select
        event_turns.tenant_id,
        event_turns.turn_id,
        {{ latest('stated.convention', cache_convention_rank('stated')) }} as convention
    from event_turns
    inner join {{ ref('stg_billing__cache_conventions') }} as stated
        on (stated.tenant_id is null or stated.tenant_id = event_turns.tenant_id)
        and (stated.model is null or stated.model = event_turns.model)
        and (stated.gateway is null or stated.gateway = {{ gateway('event_turns.model') }})
        and stated.valid_from <= coalesce(event_turns.occurred_at, event_turns._received_at)
        and (stated.valid_to is null or stated.valid_to > coalesce(event_turns.occurred_at, event_turns._received_at))
    where event_turns.agent_runtime = 'hive'
        and (event_turns.cache_read_input_tokens > 0 or event_turns.cache_write_input_tokens > 0)
    group by event_turns.tenant_id, event_turns.turn_id
),

events_counted as (
    select
        event_turns.* replace (
            coalesce(event_turns.cache_read_input_tokens, 0) as cache_read_input_tokens,
            coalesce(event_turns.cache_write_input_tokens, 0) as cache_write_input_tokens
        ),
        conventions.convention
    from event_turns
    left join conventions using (tenant_id, turn_id)
),

events_normalized as (
    select
        *,
        -- Other runtimes' logs state the classes of input apart: their readers make an input of them that includes cache.
        -- A row that does not keep to it was made by no reader: evidence decides, as it does for Hive's.
        case
            when agent_runtime <> 'hive' and cache_read_input_tokens + cache_write_input_tokens <= input_tokens
                then 'inclusive'
            else {{ cache_convention(
                'input_tokens', 'cache_read_input_tokens', 'cache_write_input_tokens', 'convention'
            ) }}
        end as cache_convention,
        case
            when agent_runtime <> 'hive'
                and cache_read_input_tokens + cache_write_input_tokens between 1 and input_tokens
                then 'reader'
            else {{ cache_convention_basis(
                'input_tokens', 'cache_read_input_tokens', 'cache_write_input_tokens', 'convention'
            ) }}
        end as cache_convention_basis
    from events_counted
),

-- A turn without a clock of its own happened in its session.
undated_sessions as (
    select
        tenant_id,
        session_id,
        min(occurred_at) as first_turn_at
    from event_turns
    group by tenant_id, session_id
    having count(*) > count(occurred_at)
),

step_turns as (
    select
        turns.step_id,
        turns.tenant_id,
        turns.session_id,
        turns.node_id,
        turns.match_rule,
        turns.time_basis,
        turns.input_tokens,
        turns.output_tokens,
        turns.occurred_at,
        changed._ingest_seq
    from {{ ref('int_usage__step_turns') }} as turns
    inner join changed using (tenant_id, session_id)
    where turns.is_held is not true
),

-- A graph shares the session of its queen: what the events say of a node holds for its steps too.
node_kinds as (
    select
        tenant_id,
        session_id,
        node_id,
        min(agent_kind) as agent_kind
    from event_turns
    where node_id is not null
    group by tenant_id, session_id, node_id
),

events_dated as (
    select
        event_turns.turn_id,
        event_turns.tenant_id,
        event_turns.session_id,
        event_turns.agent_kind,
        event_turns.agent_runtime,
        event_turns.turn_grain,
        event_turns.request_kind,
        event_turns.service_tier,
        event_turns.speed,
        event_turns.inference_geo,
        coalesce(event_turns.model, 'unknown') as model,
        event_turns.stop_reason,
        case
            when event_turns.occurred_at is not null then coalesce(event_turns.time_basis, 'local_resolved')
            when coalesce(undated_sessions.first_turn_at, sessions.started_at) is not null then 'session_start'
            else 'received'
        end as time_basis,
        'event' as turn_source,
        case matched.match_rule
            when 'same_turn' then 'event_and_step'
            when 'other_tokens' then 'event_against_step'
            else 'event'
        end as count_basis,
        event_turns.cache_convention,
        event_turns.cache_convention_basis,
        event_turns.input_tokens as reported_input_tokens,
        {{ input_tokens_with_cache(
            'event_turns.input_tokens', 'event_turns.cache_read_input_tokens', 'event_turns.cache_write_input_tokens',
            'event_turns.cache_convention'
        ) }} as input_tokens,
        event_turns.cache_read_input_tokens,
        event_turns.cache_write_input_tokens,
        -- A split that is more than the whole is none.
        case
            when coalesce(event_turns.cache_write_5m_input_tokens, 0)
                + coalesce(event_turns.cache_write_1h_input_tokens, 0) <= event_turns.cache_write_input_tokens
                then coalesce(event_turns.cache_write_5m_input_tokens, 0)
            else 0
        end as cache_write_5m_input_tokens,
        case
            when coalesce(event_turns.cache_write_5m_input_tokens, 0)
                + coalesce(event_turns.cache_write_1h_input_tokens, 0) <= event_turns.cache_write_input_tokens
                then coalesce(event_turns.cache_write_1h_input_tokens, 0)
            else 0
        end as cache_write_1h_input_tokens,
        event_turns.output_tokens,
        event_turns.reasoning_output_tokens,
        event_turns.web_search_requests,
        event_turns.reported_cost_usd,
        coalesce(event_turns.is_time_ambiguous, false) as is_time_ambiguous,
        event_turns.is_final,
        coalesce(
            event_turns.occurred_at, undated_sessions.first_turn_at, sessions.started_at, event_turns._received_at
        ) as occurred_at,
        event_turns._ingest_seq
    from events_normalized as event_turns
    left join sessions using (tenant_id, session_id)
    left join undated_sessions using (tenant_id, session_id)
    left join {{ ref('int_usage__steps_matched') }} as matched using (tenant_id, session_id, turn_id)
),

steps_dated as (
    select
        step_turns.step_id as turn_id,
        step_turns.tenant_id,
        step_turns.session_id,
        coalesce(node_kinds.agent_kind, {{ agent_kind_of_session('sessions.session_kind') }}) as agent_kind,
        'hive' as agent_runtime,
        'turn' as turn_grain,
        cast(null as varchar) as request_kind,
        cast(null as varchar) as service_tier,
        cast(null as varchar) as speed,
        cast(null as varchar) as inference_geo,
        'unknown' as model,
        cast(null as varchar) as stop_reason,
        step_turns.time_basis,
        'step' as turn_source,
        case step_turns.match_rule when 'unmatched' then 'step_without_event' else 'step' end as count_basis,
        'inclusive' as cache_convention,
        'none' as cache_convention_basis,
        step_turns.input_tokens as reported_input_tokens,
        step_turns.input_tokens,
        0 as cache_read_input_tokens,
        0 as cache_write_input_tokens,
        0 as cache_write_5m_input_tokens,
        0 as cache_write_1h_input_tokens,
        step_turns.output_tokens,
        cast(null as bigint) as reasoning_output_tokens,
        cast(null as bigint) as web_search_requests,
        -- Unreported, not free: a zero would be summed as a price.
        cast(null as decimal(38, 20)) as reported_cost_usd,
        false as is_time_ambiguous,
        cast(null as boolean) as is_final,
        step_turns.occurred_at,
        step_turns._ingest_seq
    from step_turns
    left join sessions using (tenant_id, session_id)
    left join node_kinds using (tenant_id, session_id, node_id)
),

turns as (
    select * from events_dated
    union all
    select * from steps_dated
)

select
    turn_id,
    tenant_id,
    session_id,
    agent_kind,
    agent_runtime,
    model,
    request_kind,
    service_tier,
    speed,
    inference_geo,
    stop_reason,
    time_basis,
    turn_grain,
    turn_source,
    count_basis,
    cache_convention,
    cache_convention_basis,
    reported_input_tokens,
    input_tokens,
    cache_read_input_tokens,
    cache_write_input_tokens,
    cache_write_5m_input_tokens,
    cache_write_1h_input_tokens,
    output_tokens,
    reasoning_output_tokens,
    web_search_requests,
    reported_cost_usd,
    is_final,
    is_time_ambiguous,
    greatest(input_tokens, output_tokens) > {{ var('plausible_turn_tokens') }}
        or coalesce(reported_cost_usd > {{ var('plausible_turn_usd') }}, false) as is_implausible,
    {{ utc_date('occurred_at') }} as usage_date,
    occurred_at,
    _ingest_seq
from turns
