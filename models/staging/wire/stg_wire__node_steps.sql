with source as (
    select * from {{ source('wire', 'node_steps') }}
),

superseded as (
    select * from {{ ref('stg_wire__superseded_records') }}
    where table_name = 'node_steps'
)

select
    source.record_id as step_id,
    source.tenant_id,
    {{ agent_runtime('source.agent_runtime') }} as agent_runtime,
    source.session_id,
    source.trace_id,
    source.node_id,
    source.verdict,
    source.step_index,
    source.source_line,
    source.input_tokens,
    source.output_tokens,
    source.latency_ms,
    source.is_partial,
    source.tool_started_at,
    source.file_modified_at,
    source.region,
    source._user_id,
    source._device_id,
    source._received_at
from source
left join superseded
    on source.tenant_id = superseded.tenant_id
    and source.record_id = superseded.record_id
where superseded.record_id is null
