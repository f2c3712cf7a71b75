{{
    config(
        materialized='incremental',
        meta={'replace': {'keys': ['tenant_id', 'usage_date'], 'changed': 'changed_turn_days'}}
    )
}}

with changed as (
    {{ changed_turn_days() }}
)

select
    turns.tenant_id,
    turns.model,
    turns.usage_date,
    max(changed._ingest_seq) as _ingest_seq
from {{ ref('fct_llm_turns') }} as turns
inner join changed using (tenant_id, usage_date)
group by turns.tenant_id, turns.model, turns.usage_date
