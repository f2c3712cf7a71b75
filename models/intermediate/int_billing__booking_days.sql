{{
    config(
        materialized='incremental',
        incremental_strategy='replace_changed',
        on_schema_change='fail',
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
