{{
    config(
        materialized='incremental',
        meta={'replace': {'keys': ['tenant_id', 'session_id'], 'changed': 'changed_sessions_and_children'}}
    )
}}

with changed as (
    {{ changed_sessions_and_children() }}
),

-- A fork goes on from its parent's whole conversation, and so does a worker in most versions of the source.
children as (
    select
        s.tenant_id,
        s.session_id,
        s.parent_session_id,
        case when s.session_kind = 'worker' then 'worker' else 'fork' end as inheritance_kind,
        changed._ingest_seq
    from {{ ref('int_sessions__observations_merged') }} as s
    inner join changed using (tenant_id, session_id)
    where s.parent_session_id is not null
        and (s.session_kind = 'worker' or s.forked_from_session_id is not null)
),

turns as (
    select
        judged.turn_id,
        judged.tenant_id,
        judged.session_id,
        judged.turn_number,
        t.input_tokens,
        t.cache_read_input_tokens,
        t.output_tokens,
        t.reported_cost_usd,
        t.occurred_at
    from {{ ref('int_usage__turns_judged') }} as judged
    inner join {{ ref('fct_llm_turns') }} as t using (tenant_id, turn_id)
),

first_turns as (
    select
        children.*,
        turns.input_tokens as first_turn_input_tokens,
        turns.cache_read_input_tokens as first_turn_cache_read_input_tokens,
        turns.reported_cost_usd as first_turn_cost_usd,
        turns.occurred_at as first_turn_at
    from children
    inner join turns using (tenant_id, session_id)
    where turns.turn_number = 1
),

parent_contexts as (
    select
        first_turns.tenant_id,
        first_turns.session_id,
        {{ latest('turns.input_tokens + turns.output_tokens', 'turns.turn_number') }} as parent_context_tokens
    from first_turns
    inner join turns
        on first_turns.tenant_id = turns.tenant_id
        and first_turns.parent_session_id = turns.session_id
        and first_turns.first_turn_at >= turns.occurred_at
    group by first_turns.tenant_id, first_turns.session_id
),

contexts as (
    select
        first_turns.*,
        least(first_turns.first_turn_input_tokens, parent_contexts.parent_context_tokens) as inherited_context_tokens
    from first_turns
    left join parent_contexts using (tenant_id, session_id)
)

select
    contexts.tenant_id,
    contexts.session_id,
    contexts.inheritance_kind,
    contexts.first_turn_input_tokens,
    contexts.first_turn_cache_read_input_tokens,
    -- NULL where no turn of the parent is known from before: unknown, not nothing.
    contexts.inherited_context_tokens,
    cast(
        sum(case when contexts.inherited_context_tokens is not null
            then least(turns.input_tokens, contexts.inherited_context_tokens) end) as bigint
    ) as inherited_input_tokens,
    cast(
        sum(case when contexts.inherited_context_tokens is not null
            then least(turns.cache_read_input_tokens, turns.input_tokens, contexts.inherited_context_tokens) end)
        as bigint
    ) as inherited_cache_read_input_tokens,
    contexts.first_turn_cost_usd,
    contexts._ingest_seq
from contexts
inner join turns using (tenant_id, session_id)
group by
    contexts.tenant_id,
    contexts.session_id,
    contexts.inheritance_kind,
    contexts.first_turn_input_tokens,
    contexts.first_turn_cache_read_input_tokens,
    contexts.inherited_context_tokens,
    contexts.first_turn_cost_usd,
    contexts._ingest_seq
