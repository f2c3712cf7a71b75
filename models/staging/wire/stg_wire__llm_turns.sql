{{ resolved_times('llm_turns') }},

released as (
    select * from {{ ref('stg_wire__released') }}
),

superseded as (
    select * from {{ ref('stg_wire__superseded_records') }}
    where table_name = 'llm_turns'
)

select
    resolved.record_id as turn_id,
    resolved.tenant_id,
    resolved.session_id,
    resolved.parent_session_id,
    resolved.node_id,
    resolved.model,
    {{ agent_kind('resolved.agent_role') }} as agent_kind,
    {{ agent_runtime('resolved.agent_runtime') }} as agent_runtime,
    coalesce(resolved.turn_grain, 'turn') as turn_grain,
    resolved.request_kind,
    resolved.service_tier,
    resolved.speed,
    resolved.inference_geo,
    resolved.stop_reason,
    resolved.time_basis,
    resolved.iteration,
    resolved.input_tokens,
    resolved.cache_read_input_tokens,
    resolved.cache_write_input_tokens,
    resolved.cache_write_5m_input_tokens,
    resolved.cache_write_1h_input_tokens,
    resolved.output_tokens,
    resolved.reasoning_output_tokens,
    resolved.web_search_requests,
    resolved.reported_cost_usd,
    resolved.is_time_ambiguous,
    resolved.is_final,
    {{ is_held('resolved.occurred_at', 'resolved._received_at') }} as is_held,
    resolved.occurred_at,
    resolved.region,
    resolved._user_id,
    resolved._device_id,
    resolved._received_at
from resolved
left join released
    on resolved.tenant_id = released.tenant_id
    and resolved.record_id = released.turn_id
left join superseded
    on resolved.tenant_id = superseded.tenant_id
    and resolved.record_id = superseded.record_id
where superseded.record_id is null
    and resolved.is_covered is not true
