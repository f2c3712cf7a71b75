with source as (
    select * from {{ source('wire', 'llm_turns') }}
),

released as (
    select * from {{ ref('stg_wire__released') }}
)

select
    source.record_id as turn_id,
    source.tenant_id,
    source.session_id,
    source.parent_session_id,
    source.model,
    {{ agent_kind('source.agent_role') }} as agent_kind,
    source.stop_reason,
    source.time_basis,
    source.input_tokens,
    source.cache_read_input_tokens,
    source.cache_write_input_tokens,
    source.output_tokens,
    source.reported_cost_usd,
    source.is_time_ambiguous,
    {{ is_held('source.occurred_at', 'source._received_at') }} as is_held,
    source.occurred_at,
    source.region,
    source._user_id,
    source._device_id,
    source._received_at
from source
left join released
    on source.tenant_id = released.tenant_id
    and source.record_id = released.turn_id
