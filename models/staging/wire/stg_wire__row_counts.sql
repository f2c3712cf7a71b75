with source as (
    select * from {{ source('wire', 'row_counts') }}
)

select
    manifest_key,
    tenant_id,
    table_name,
    turn_rows_duplicate,
    turn_rows_conflict
from source
