{{
    config(
        materialized='incremental',
        meta={'replace': {'keys': ['tenant_id', 'usage_date'], 'changed': 'changed_usage_days'}}
    )
}}

{{ usage_by() }}
