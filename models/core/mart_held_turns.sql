with events as (
    select * from {{ ref('stg_wire__llm_turns') }}
    where is_held
),

steps as (
    select * from {{ ref('int_usage__step_turns') }}
    where is_held
),

held as (
    select
        turn_id,
        tenant_id,
        session_id,
        'event' as turn_source,
        input_tokens,
        output_tokens,
        occurred_at,
        _received_at as received_at
    from events
    union all
    select
        step_id as turn_id,
        tenant_id,
        session_id,
        'step' as turn_source,
        input_tokens,
        output_tokens,
        occurred_at,
        received_at
    from steps
)

select
    turn_id,
    tenant_id,
    session_id,
    turn_source,
    input_tokens,
    output_tokens,
    occurred_at,
    received_at
from held
