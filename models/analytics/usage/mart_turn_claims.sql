{{ config(materialized='view') }}

with claims as (
    select * from {{ ref('stg_wire__control_totals') }}
    where claimed_by = 'turn_stats'
        and session_id is not null
        and started_at is not null
        and ended_at is not null
),

sessions as (
    select * from {{ ref('dim_sessions') }}
),

-- An agent's turns are claimed of its own session; its responses are in the sessions that it had, and their sub-agents'.
turns as (
    select
        t.tenant_id,
        t.session_id,
        t.agent_runtime,
        t.turn_grain,
        coalesce(own.agent_name, parents.agent_name) as agent_name,
        coalesce(own.session_kind = 'worker', false) as is_sub_agent,
        t.input_tokens,
        t.output_tokens,
        t.is_final,
        t.occurred_at
    from {{ ref('fct_llm_turns') }} as t
    inner join sessions as own
        on t.tenant_id = own.tenant_id
        and t.session_id = own.session_id
    left join sessions as parents
        on own.tenant_id = parents.tenant_id
        and own.parent_session_id = parents.session_id
    where t.agent_runtime in (select agent_runtime from claims)
),

named as (
    select
        claims.*,
        sessions.agent_name
    from claims
    inner join sessions using (tenant_id, session_id)
),

-- The times of a claim are whole seconds, cut off.
responses as (
    select
        named.control_total_id,
        count(*) as responses,
        sum(turns.input_tokens) as input_tokens,
        sum(turns.output_tokens) as output_tokens,
        coalesce(sum(turns.input_tokens) filter (where not turns.is_sub_agent), 0) as main_input_tokens,
        coalesce(sum(turns.output_tokens) filter (where not turns.is_sub_agent), 0) as main_output_tokens,
        bool_or(turns.is_final is false) as has_interrupted
    from named
    inner join turns
        on named.tenant_id = turns.tenant_id
        and named.agent_runtime = turns.agent_runtime
        and named.agent_name = turns.agent_name
        and turns.turn_grain = 'response'
        and turns.occurred_at >= named.started_at
        and turns.occurred_at < named.ended_at + interval 1 second
    group by named.control_total_id
),

-- A turn without a readable response counts by its claim.
counted_by_claim as (
    select distinct
        named.control_total_id
    from named
    inner join turns
        on named.tenant_id = turns.tenant_id
        and named.session_id = turns.session_id
        and turns.turn_grain = 'turn'
        and named.ended_at = turns.occurred_at
        and named.input_tokens = turns.input_tokens
        and named.output_tokens = turns.output_tokens
),

compared as (
    select
        named.*,
        coalesce(responses.responses, 0) as responses,
        counted_by_claim.control_total_id is not null as is_counted_by_claim,
        coalesce(responses.input_tokens, 0)
            + case when counted_by_claim.control_total_id is null then 0 else named.input_tokens end as counted_input_tokens,
        coalesce(responses.output_tokens, 0)
            + case when counted_by_claim.control_total_id is null then 0 else named.output_tokens end
            as counted_output_tokens,
        coalesce(responses.main_input_tokens, 0) as main_input_tokens,
        coalesce(responses.main_output_tokens, 0) as main_output_tokens,
        coalesce(responses.has_interrupted, false) as has_interrupted
    from named
    left join responses using (control_total_id)
    left join counted_by_claim
        on named.control_total_id = counted_by_claim.control_total_id
)

select
    control_total_id,
    tenant_id,
    session_id,
    agent_runtime,
    agent_name,
    claimed_by,
    model,
    case
        when input_tokens = counted_input_tokens and output_tokens = counted_output_tokens then 'none'
        when input_tokens + output_tokens = 0 then 'failed_turn'
        when is_counted_by_claim or (input_tokens = main_input_tokens and output_tokens = main_output_tokens)
            then 'sub_agents'
        when has_interrupted then 'interrupted_stream'
        else 'unexplained'
    end as difference_reason,
    is_counted_by_claim,
    cast(responses as bigint) as responses,
    cast(input_tokens as bigint) as claimed_input_tokens,
    cast(output_tokens as bigint) as claimed_output_tokens,
    cast(counted_input_tokens as bigint) as counted_input_tokens,
    cast(counted_output_tokens as bigint) as counted_output_tokens,
    started_at,
    ended_at
from compared
