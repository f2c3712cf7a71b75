{{
    config(
        materialized='incremental',
        meta={'replace': {'keys': ['tenant_id', 'session_id'], 'changed': 'changed_or_moved_sessions'}}
    )
}}

with changed as (
    {{ changed_or_moved_sessions() }}
),

rows_of_days as (
    select
        tenant_id,
        session_id,
        usage_date,
        {{ fingerprint([
            'turn_id', 'agent_kind', 'model', 'occurred_at', 'count_basis', 'input_tokens',
            'cache_read_input_tokens', 'cache_write_input_tokens', 'output_tokens', 'reported_cost_usd'
        ]) }} as _fingerprint
    from {{ ref('fct_llm_turns') }}
),

{{ session_days(follows=['user_id', 'root_session_id', 'colony_id']) }}
