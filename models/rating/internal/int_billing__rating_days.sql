{{
    config(
        materialized='incremental',
        meta={'replace': {'keys': ['tenant_id', 'usage_date'], 'changed': 'changed_rating_inputs'}}
    )
}}

select
    tenant_id,
    usage_date,
    _fingerprint,
    _ingest_seq,
    _rating_seq
from (
    {{ changed_rating_inputs() }}
) as changed
