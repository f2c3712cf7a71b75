{{ config(materialized='view') }}

with claims as (
    select * from {{ ref('stg_wire__control_totals') }}
    where session_id is not null
        and turn_id is null
        and claimed_by <> 'turn_stats'
),

-- Of a claim that covers everything since the session began the last one speaks.
ranked as (
    select
        *,
        row_number() over (
            partition by tenant_id, session_id, claimed_by, model
            order by ended_at desc nulls last, observed_at desc nulls last, control_total_id
        ) as place
    from claims
),

last_claims as (
    select * from ranked
    where place = 1
),

-- A claim covers the session and the sub-agents that it started.
turns as (
    select
        t.*,
        coalesce(sessions.parent_session_id, t.session_id) as claimed_session_id,
        sessions.session_kind = 'worker' as is_sub_agent
    from {{ ref('fct_llm_turns') }} as t
    inner join {{ ref('dim_sessions') }} as sessions using (tenant_id, session_id)
),

assigned as (
    select
        *,
        case when is_sub_agent then claimed_session_id else session_id end as claim_id
    from turns
),

counted as (
    select
        tenant_id,
        claim_id as session_id,
        count(*) as turns,
        sum(input_tokens) as input_tokens,
        sum(output_tokens) as output_tokens,
        bool_or(is_final is false) as has_interrupted,
        bool_or(not is_sub_agent) as has_main,
        max(occurred_at) as last_turn_at
    from assigned
    group by tenant_id, claim_id
),

counted_models as (
    select
        tenant_id,
        claim_id as session_id,
        model,
        sum(input_tokens + output_tokens) as tokens,
        bool_or(is_final is false) as has_interrupted
    from assigned
    group by tenant_id, claim_id, model
),

-- A model of which more is claimed than any line says, with no response of it cut off: a call that no line tells.
helpers as (
    select
        last_claims.tenant_id,
        last_claims.session_id,
        last_claims.claimed_by,
        bool_or(
            last_claims.input_tokens + last_claims.output_tokens > coalesce(counted_models.tokens, 0)
            and not coalesce(counted_models.has_interrupted, false)
        ) as has_helper
    from last_claims
    left join counted_models using (tenant_id, session_id, model)
    where last_claims.model is not null
    group by last_claims.tenant_id, last_claims.session_id, last_claims.claimed_by
),

compactions as (
    select distinct tenant_id, session_id
    from {{ ref('fct_status_events') }}
    where kind = 'compacted'
),

compared as (
    select
        last_claims.tenant_id,
        last_claims.session_id,
        last_claims.agent_runtime,
        last_claims.claimed_by,
        last_claims.input_tokens as claimed_input_tokens,
        last_claims.output_tokens as claimed_output_tokens,
        coalesce(counted.input_tokens, 0) as counted_input_tokens,
        coalesce(counted.output_tokens, 0) as counted_output_tokens,
        last_claims.reported_cost_usd as claimed_cost_usd,
        last_claims.lines_added,
        last_claims.lines_removed,
        coalesce(counted.has_main, false) as has_main,
        coalesce(counted.has_interrupted, false) as has_interrupted,
        coalesce(helpers.has_helper, false) as has_helper,
        compactions.session_id is not null as has_compaction,
        last_claims.ended_at as claimed_at,
        counted.last_turn_at
    from last_claims
    left join counted using (tenant_id, session_id)
    left join helpers using (tenant_id, session_id, claimed_by)
    left join compactions
        on last_claims.tenant_id = compactions.tenant_id
        and last_claims.session_id = compactions.session_id
    where last_claims.model is null
),

-- Claims of single turns, all of a session together: each turn has a reason of its own in mart_turn_claims.
turn_claims as (
    select
        tenant_id,
        session_id,
        agent_runtime,
        claimed_by,
        sum(claimed_input_tokens) as claimed_input_tokens,
        sum(claimed_output_tokens) as claimed_output_tokens,
        sum(counted_input_tokens) as counted_input_tokens,
        sum(counted_output_tokens) as counted_output_tokens,
        bool_or(difference_reason = 'unexplained') as has_unexplained,
        bool_or(difference_reason = 'failed_turn') as has_failed_turn,
        bool_or(difference_reason = 'interrupted_stream') as has_interrupted,
        bool_or(difference_reason = 'sub_agents') as has_sub_agents,
        max(ended_at) as claimed_at
    from {{ ref('mart_turn_claims') }}
    group by tenant_id, session_id, agent_runtime, claimed_by
),

explained as (
    select
        tenant_id,
        session_id,
        agent_runtime,
        claimed_by,
        case
            when claimed_input_tokens = counted_input_tokens and claimed_output_tokens = counted_output_tokens then 'none'
            when claimed_by = 'session_counters' then 'last_run_only'
            when not has_main then 'deleted_history'
            when claimed_input_tokens + claimed_output_tokens < counted_input_tokens + counted_output_tokens
                then 'written_before_the_end'
            when has_helper then 'helper_call'
            when has_interrupted then 'interrupted_stream'
            when has_compaction then 'compaction'
            else 'unexplained'
        end as difference_reason,
        claimed_input_tokens,
        claimed_output_tokens,
        counted_input_tokens,
        counted_output_tokens,
        lines_added,
        lines_removed,
        claimed_cost_usd,
        claimed_at
    from compared
    union all
    select
        tenant_id,
        session_id,
        agent_runtime,
        claimed_by,
        case
            when has_unexplained then 'unexplained'
            when has_failed_turn then 'failed_turn'
            when has_sub_agents then 'sub_agents'
            when has_interrupted then 'interrupted_stream'
            else 'none'
        end as difference_reason,
        claimed_input_tokens,
        claimed_output_tokens,
        counted_input_tokens,
        counted_output_tokens,
        null as lines_added,
        null as lines_removed,
        cast(null as decimal(38, 20)) as claimed_cost_usd,
        claimed_at
    from turn_claims
)

select
    tenant_id,
    session_id,
    agent_runtime,
    claimed_by,
    difference_reason,
    cast(claimed_input_tokens as bigint) as claimed_input_tokens,
    cast(claimed_output_tokens as bigint) as claimed_output_tokens,
    cast(counted_input_tokens as bigint) as counted_input_tokens,
    cast(counted_output_tokens as bigint) as counted_output_tokens,
    cast(claimed_input_tokens - counted_input_tokens as bigint) as input_tokens_off,
    cast(claimed_output_tokens - counted_output_tokens as bigint) as output_tokens_off,
    cast(lines_added as bigint) as lines_added,
    cast(lines_removed as bigint) as lines_removed,
    claimed_cost_usd,
    claimed_at
from explained
