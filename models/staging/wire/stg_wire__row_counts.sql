with source as (
    select * from {{ source('wire', 'row_counts') }}
)

select
    manifest_key,
    tenant_id,
    table_name,
    turn_rows_duplicate,
    turn_rows_conflict,
    input_tokens_in,
    input_tokens_new,
    input_tokens_duplicate,
    input_tokens_conflict,
    output_tokens_in,
    output_tokens_new,
    output_tokens_duplicate,
    output_tokens_conflict,
    reported_cost_usd_collapsed,
    _ingest_seq
from source
