-- The instant counts but for its zone, in which every offset is a number of quarters of an hour: what resolves a local
-- time may know the writer's offset only now.
with turns as (
    {{ superseded_identities(
        'llm_turns',
        [
            to_micros('occurred_at') ~ ' % 900000000', 'iteration', 'input_tokens', 'cache_read_input_tokens', 'cache_write_input_tokens',
            'output_tokens', 'reported_cost_usd',
        ],
        is_keyed('rows_of_wire.session_id') ~ ' or ' ~ is_keyed('rows_of_wire.stream_id')
        ~ ' or rows_of_wire.occurred_at is null or rows_of_wire.iteration is null',
        'true',
        'reported_cost_usd'
    ) }}
),

steps as (
    {{ superseded_identities(
        'node_steps',
        ['source_line', 'step_index', 'input_tokens', 'output_tokens', 'latency_ms', 'tool_started_at'],
        'rows_of_wire.span_id is null or ' ~ is_keyed('rows_of_wire.span_id'),
        'step_index >= 0',
        'cast(null as decimal(38, 20))'
    ) }}
)

select
    record_id,
    tenant_id,
    renamed_session_id,
    first_session_id,
    table_name,
    tokens,
    reported_cost_usd,
    is_turn,
    _ingest_seq
from turns
union all
select
    record_id,
    tenant_id,
    renamed_session_id,
    first_session_id,
    table_name,
    tokens,
    reported_cost_usd,
    is_turn,
    _ingest_seq
from steps
