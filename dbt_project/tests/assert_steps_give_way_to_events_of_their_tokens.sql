-- A step that gave way to an event of its own turn had that event's tokens, and the event counts: without it the turn
-- would be in no sum.
{{ config(meta={'dagster': {'ref': {'name': 'int_usage__steps_matched'}}}) }}
select
    matched.tenant_id,
    matched.session_id,
    matched.step_id
from {{ ref('int_usage__steps_matched') }} as matched
left join {{ ref('stg_wire__llm_turns') }} as events
    on matched.tenant_id = events.tenant_id
    and matched.turn_id = events.turn_id
where (matched.match_rule in ('same_turn', 'other_tokens') and events.turn_id is null)
    or (
        matched.match_rule = 'same_turn'
        and (matched.input_tokens <> events.input_tokens or matched.output_tokens <> events.output_tokens)
    )
