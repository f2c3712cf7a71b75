{{
    config(
        materialized='incremental',
        meta={'replace': {'keys': ['tenant_id', 'session_id'], 'changed': 'changed_or_moved_sessions'}}
    )
}}

with changed as (
    {{ changed_or_moved_sessions() }}
),

resolved as (
    select * from {{ ref('int_sessions__tree_resolved') }}
),

turns as (
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

built as (
    select
        turns.tenant_id,
        turns.session_id,
        turns.usage_date,
        {{ fingerprint_of_all('turns._fingerprint') }} as _fingerprint
    from turns
    inner join changed using (tenant_id, session_id)
    group by turns.tenant_id, turns.session_id, turns.usage_date
),

{{ session_day_pairs('usage_date') }},

current_pairs as (
    select
        pairs.tenant_id,
        pairs.session_id,
        resolved.user_id,
        resolved.root_session_id,
        resolved.colony_id,
        pairs.usage_date,
        built._fingerprint,
        changed._ingest_seq
    from pairs
    inner join changed using (tenant_id, session_id)
    left join built using (tenant_id, session_id, usage_date)
    left join resolved using (tenant_id, session_id)
)

select
    current_pairs.session_id,
    current_pairs.tenant_id,
    current_pairs.user_id,
    current_pairs.root_session_id,
    current_pairs.colony_id,
    current_pairs.usage_date,
    current_pairs._fingerprint,
    {% if is_incremental() -%}
    -- A session that lives for months must not reopen all its days with every turn.
    case
        when stored._fingerprint is not distinct from current_pairs._fingerprint
            and stored.user_id is not distinct from current_pairs.user_id
            and stored.root_session_id is not distinct from current_pairs.root_session_id
            and stored.colony_id is not distinct from current_pairs.colony_id
            then coalesce(stored._ingest_seq, current_pairs._ingest_seq)
        else current_pairs._ingest_seq
    end as _ingest_seq
    {%- else -%}
    current_pairs._ingest_seq
    {%- endif %}
from current_pairs
{% if is_incremental() -%}
left join stored using (tenant_id, session_id, usage_date)
{%- endif %}
