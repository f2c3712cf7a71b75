{{
    config(
        materialized='incremental',
        meta={'replace': {'keys': ['tenant_id', 'usage_date'], 'changed': 'changed_booking_inputs'}}
    )
}}

select
    tenant_id,
    usage_date,
    _fingerprint,
    _booking_seq
from (
    {{ changed_booking_inputs() }}
) as changed
