{{
    config(
        materialized='incremental',
        meta={'replace': {'keys': ['tenant_id', 'usage_date'], 'changed': 'changed_usage_inputs'}}
    )
}}

select
    tenant_id,
    usage_date,
    _rated_seq,
    _ingest_seq,
    _rating_seq
from (
    {{ changed_usage_inputs() }}
) as changed
