with source as (
    select * from {{ source('wire', 'released') }}
)

select distinct
    record_id as turn_id,
    tenant_id
from source
