with sessions as (
    select * from {{ ref('dim_sessions') }}
),

walked as (
    select * from {{ ref('int_sessions__ancestors_walked') }}
),

inheritance as (
    select * from {{ ref('int_usage__session_inheritance') }}
),

wasted as (
    select
        judged.tenant_id,
        judged.session_id,
        count(*) as wasted_turns,
        sum(t.input_tokens + t.output_tokens) as wasted_tokens,
        sum(t.reported_cost_usd) as wasted_cost_usd
    from {{ ref('int_usage__turns_judged') }} as judged
    inner join {{ ref('fct_llm_turns') }} as t using (tenant_id, turn_id)
    where judged.waste_kind <> 'none'
    group by judged.tenant_id, judged.session_id
),

money as (
    select
        tenant_id,
        session_id,
        sum(unpriced_turns) as unpriced_turns,
        sum(unpriced_tokens) as unpriced_tokens,
        sum(rated_cost_usd) as rated_cost_usd,
        sum(rated_cost_low_usd) as rated_cost_low_usd,
        sum(rated_cost_high_usd) as rated_cost_high_usd
    from {{ ref('agg_usage_session_daily') }}
    group by tenant_id, session_id
),

subtrees as (
    select
        walked.tenant_id,
        walked.ancestor_id as session_id,
        count(*) as subtree_sessions,
        sum(sessions.turns) as subtree_turns,
        sum(sessions.input_tokens) as subtree_input_tokens,
        sum(sessions.output_tokens) as subtree_output_tokens,
        sum(sessions.tool_calls) as subtree_tool_calls,
        sum(sessions.unreported_turns) as subtree_unreported_turns,
        sum(sessions.reported_cost_usd) as subtree_cost_usd,
        coalesce(sum(money.unpriced_tokens), 0) as subtree_unpriced_tokens,
        sum(money.rated_cost_usd) as subtree_rated_cost_usd,
        sum(money.rated_cost_low_usd) as subtree_rated_cost_low_usd,
        sum(money.rated_cost_high_usd) as subtree_rated_cost_high_usd
    from walked
    inner join sessions using (tenant_id, session_id)
    left join money using (tenant_id, session_id)
    group by walked.tenant_id, walked.ancestor_id
)

select
    sessions.tenant_id,
    sessions.session_id,
    sessions.parent_session_id,
    sessions.root_session_id,
    sessions.colony_id,
    sessions.user_id,
    sessions.queen_name,
    sessions.agent_name,
    sessions.session_kind,
    sessions.agent_runtime,
    sessions.agent_type,
    sessions.project_id,
    inheritance.inheritance_kind,
    sessions.depth,
    sessions.turns,
    sessions.input_tokens,
    sessions.cache_read_input_tokens,
    sessions.cache_write_input_tokens,
    sessions.output_tokens,
    sessions.tool_calls,
    sessions.unreported_turns,
    cast(coalesce(money.unpriced_turns, 0) as bigint) as unpriced_turns,
    cast(coalesce(money.unpriced_tokens, 0) as bigint) as unpriced_tokens,
    cast(coalesce(wasted.wasted_turns, 0) as bigint) as wasted_turns,
    cast(coalesce(wasted.wasted_tokens, 0) as bigint) as wasted_tokens,
    inheritance.first_turn_input_tokens,
    inheritance.first_turn_cache_read_input_tokens,
    inheritance.inherited_context_tokens,
    inheritance.inherited_input_tokens,
    inheritance.inherited_cache_read_input_tokens,
    cast(subtrees.subtree_sessions as bigint) as subtree_sessions,
    cast(subtrees.subtree_turns as bigint) as subtree_turns,
    cast(subtrees.subtree_input_tokens as bigint) as subtree_input_tokens,
    cast(subtrees.subtree_output_tokens as bigint) as subtree_output_tokens,
    cast(subtrees.subtree_tool_calls as bigint) as subtree_tool_calls,
    cast(subtrees.subtree_unreported_turns as bigint) as subtree_unreported_turns,
    cast(subtrees.subtree_unpriced_tokens as bigint) as subtree_unpriced_tokens,
    sessions.reported_cost_usd,
    wasted.wasted_cost_usd,
    inheritance.first_turn_cost_usd,
    subtrees.subtree_cost_usd,
    money.rated_cost_usd,
    money.rated_cost_low_usd,
    money.rated_cost_high_usd,
    subtrees.subtree_rated_cost_usd,
    subtrees.subtree_rated_cost_low_usd,
    subtrees.subtree_rated_cost_high_usd,
    -- Nothing that is known stands above it: the tops' subtrees are apart and hold every session once. The top of a tree
    -- may be a session that no device has shown; of a cycle it is the smallest id.
    sessions.session_id = sessions.root_session_id
    or (roots.session_id is null and sessions.parent_session_id = sessions.root_session_id) as is_top,
    sessions.started_at,
    sessions.first_turn_at,
    sessions.last_turn_at
from sessions
inner join subtrees using (tenant_id, session_id)
left join money using (tenant_id, session_id)
left join inheritance using (tenant_id, session_id)
left join wasted using (tenant_id, session_id)
left join sessions as roots
    on sessions.tenant_id = roots.tenant_id
    and sessions.root_session_id = roots.session_id
