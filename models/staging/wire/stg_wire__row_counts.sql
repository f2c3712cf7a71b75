with source as (
    select * from {{ source('wire', 'row_counts') }}
)

select
    manifest_key,
    tenant_id,
    table_name,
    rows_in,
    rows_new,
    rows_duplicate,
    rows_conflict
from source
