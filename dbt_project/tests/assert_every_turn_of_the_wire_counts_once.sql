-- fct_llm_turns and the turns that are held are the wire's turn events and L3 steps, without the steps that gave way to
-- an event: by number of rows and by tokens.
-- It finds what the watermark could miss: rows whose session the loader did not name in touched_sessions, and facts
-- that were not built together with what reads them.
{{ config(meta={'dagster': {'ref': {'name': 'fct_llm_turns'}}}) }}

with events as (
    select tenant_id, session_id, input_tokens, output_tokens
    from {{ ref('stg_wire__llm_turns') }}
),

steps as (
    select s.tenant_id, s.session_id, s.input_tokens, s.output_tokens
    from {{ ref('stg_wire__node_steps') }} as s
    left join {{ ref('int_usage__steps_matched') }} as matched using (tenant_id, step_id)
    where s.step_index >= 0
        and coalesce(matched.match_rule, 'missing') not in ('same_turn', 'other_tokens', 'died')
),

expected as (
    select * from events
    union all
    select * from steps
),

expected_totals as (
    select
        tenant_id,
        count(*) as turns,
        sum(input_tokens) as input_tokens,
        sum(output_tokens) as output_tokens
    from expected
    group by tenant_id
),

built as (
    select tenant_id, reported_input_tokens as input_tokens, output_tokens
    from {{ ref('fct_llm_turns') }}
    union all
    select tenant_id, input_tokens, output_tokens
    from {{ ref('mart_held_turns') }}
),

built_totals as (
    select
        tenant_id,
        count(*) as turns,
        sum(input_tokens) as input_tokens,
        sum(output_tokens) as output_tokens
    from built
    group by tenant_id
)

select
    coalesce(expected_totals.tenant_id, built_totals.tenant_id) as tenant_id,
    expected_totals.turns as expected_turns,
    built_totals.turns as built_turns
from expected_totals
full outer join built_totals
    on expected_totals.tenant_id = built_totals.tenant_id
where expected_totals.turns is distinct from built_totals.turns
    or expected_totals.input_tokens is distinct from built_totals.input_tokens
    or expected_totals.output_tokens is distinct from built_totals.output_tokens
