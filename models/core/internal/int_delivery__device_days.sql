{{
    config(
        materialized='incremental',
        meta={'replace': {'keys': ['tenant_id', 'device_id', 'delivery_date'], 'changed': 'changed_device_days'}}
    )
}}

with changed as (
    {{ changed_device_days() }}
),

read_files as (
    select
        files.tenant_id,
        files._device_id as device_id,
        files.observed_date as delivery_date,
        count(distinct files.run) as runs,
        count(*) filter (where files.outcome <> 'read' and files.source_kind <> 'other') as unreadable_files,
        -- Named anew by every run that passes them over.
        count(distinct files.source_key) filter (where files.source_kind = 'other') as unknown_session_folders,
        sum(files.lines_seen) as lines_seen,
        sum(files.lines_staged) as lines_staged,
        sum(files.lines_duplicate) as lines_duplicate,
        sum(files.lines_skipped) as lines_skipped,
        sum(files.lines_rejected) as lines_rejected,
        sum(files.lines_rejected_torn) as lines_rejected_torn,
        sum(files.lines_rejected_nul_fill) as lines_rejected_nul_fill,
        sum(files.lines_rejected_bad_utf8) as lines_rejected_bad_utf8,
        sum(files.lines_rejected_too_long) as lines_rejected_too_long,
        sum(files.lines_rejected_bad_type) as lines_rejected_bad_type,
        sum(files.lines_rejected_tail_abandoned) as lines_rejected_tail_abandoned,
        sum(files.turn_lines_rejected) as turn_lines_rejected,
        sum(files.lines_salvaged) as lines_salvaged,
        sum(files.lines_before_consent) as lines_before_consent,
        sum(files.source_lost_bytes) as source_lost_bytes
    from {{ ref('stg_wire__source_files') }} as files
    inner join changed
        on files.tenant_id = changed.tenant_id
        and files._device_id = changed.device_id
        and files.observed_date = changed.delivery_date
    group by files.tenant_id, files._device_id, files.observed_date
),

-- Of an older device, which claims nothing, the rows that came are the rows it sent. What a batch claims is proved when
-- it loads: of one that did not, no more counts than would be found in one, or the sums of many would fit no number.
batches as (
    select
        batches.manifest_key,
        batches.tenant_id,
        coalesce(batches.device_id, 'ERASED') as device_id,
        batches.received_date as delivery_date,
        batches.status,
        case
            when batches.status = 'loaded' then coalesce(batches.rows_claimed, batches.rows_in, 0)
            else least(coalesce(batches.rows_claimed, batches.rows_in, 0), {{ var('max_unproved_rows') }})
        end as rows_staged,
        coalesce(batches.rows_new, 0) as rows_loaded,
        coalesce(batches.rows_duplicate, 0) as rows_duplicate,
        coalesce(batches.rows_conflict, 0) as rows_conflict
    from {{ ref('stg_wire__batches') }} as batches
    inner join changed
        on batches.tenant_id = changed.tenant_id
        and coalesce(batches.device_id, 'ERASED') = changed.device_id
        and batches.received_date = changed.delivery_date
),

claimed_tokens as (
    select
        objects.manifest_key,
        objects.table_name,
        case
            when batches.status = 'loaded' then objects.input_tokens_claimed + objects.output_tokens_claimed
            when objects.input_tokens_claimed + objects.output_tokens_claimed > {{ var('max_unproved_tokens') }}
                then {{ var('max_unproved_tokens') }}
            else objects.input_tokens_claimed + objects.output_tokens_claimed
        end as tokens
    from {{ ref('stg_wire__batch_objects') }} as objects
    inner join batches using (manifest_key)
),

counted_tokens as (
    select
        counts.manifest_key,
        counts.table_name,
        counts.input_tokens_in + counts.output_tokens_in as tokens_in,
        counts.input_tokens_new + counts.output_tokens_new as tokens_loaded,
        counts.input_tokens_duplicate + counts.output_tokens_duplicate as tokens_duplicate,
        counts.input_tokens_conflict + counts.output_tokens_conflict as tokens_conflict
    from {{ ref('stg_wire__row_counts') }} as counts
    inner join batches using (manifest_key)
),

-- A manifest may claim the tokens of one of its objects and not of another.
tokens as (
    select
        manifest_key,
        sum(coalesce(claimed_tokens.tokens, counted_tokens.tokens_in, 0)) as tokens_staged,
        sum(claimed_tokens.tokens) as tokens_claimed,
        sum(counted_tokens.tokens_loaded) as tokens_loaded,
        sum(counted_tokens.tokens_duplicate) as tokens_duplicate,
        sum(counted_tokens.tokens_conflict) as tokens_conflict
    from claimed_tokens
    full join counted_tokens using (manifest_key, table_name)
    group by manifest_key
),

delivered as (
    select
        batches.tenant_id,
        batches.device_id,
        batches.delivery_date,
        count(*) as batches,
        sum(batches.rows_staged) as rows_staged,
        sum(batches.rows_loaded) as rows_loaded,
        sum(batches.rows_duplicate) as rows_duplicate,
        sum(batches.rows_conflict) as rows_conflict,
        sum(batches.rows_staged) filter (where batches.status = 'quarantined') as rows_quarantined,
        sum(batches.rows_staged) filter (where batches.status = 'suppressed') as rows_suppressed,
        sum(batches.rows_staged) filter (where batches.status = 'tombstone') as rows_dropped,
        sum(tokens.tokens_staged) as tokens_staged,
        sum(tokens.tokens_loaded) as tokens_loaded,
        sum(tokens.tokens_duplicate) as tokens_duplicate,
        sum(tokens.tokens_conflict) as tokens_conflict,
        sum(tokens.tokens_claimed) filter (where batches.status = 'quarantined') as tokens_quarantined,
        sum(tokens.tokens_claimed) filter (where batches.status = 'suppressed') as tokens_suppressed,
        sum(tokens.tokens_claimed) filter (where batches.status = 'tombstone') as tokens_dropped
    from batches
    left join tokens using (manifest_key)
    group by batches.tenant_id, batches.device_id, batches.delivery_date
)

select
    changed.tenant_id,
    changed.device_id,
    {%- for measure in [
        'runs', 'unreadable_files', 'unknown_session_folders', 'lines_seen', 'lines_staged', 'lines_duplicate',
        'lines_skipped', 'lines_rejected', 'lines_rejected_torn', 'lines_rejected_nul_fill', 'lines_rejected_bad_utf8', 'lines_rejected_too_long',
        'lines_rejected_bad_type', 'lines_rejected_tail_abandoned', 'turn_lines_rejected', 'lines_salvaged', 'lines_before_consent',
        'source_lost_bytes'
    ] %}
    cast(coalesce(read_files.{{ measure }}, 0) as bigint) as {{ measure }},
    {%- endfor %}
    {%- for measure in [
        'batches', 'rows_staged', 'rows_loaded', 'rows_duplicate', 'rows_conflict', 'rows_quarantined', 'rows_suppressed',
        'rows_dropped', 'tokens_staged', 'tokens_loaded', 'tokens_duplicate', 'tokens_conflict', 'tokens_quarantined',
        'tokens_suppressed', 'tokens_dropped'
    ] %}
    cast(coalesce(delivered.{{ measure }}, 0) as bigint) as {{ measure }},
    {%- endfor %}
    changed.delivery_date,
    changed._ingest_seq
from changed
left join read_files using (tenant_id, device_id, delivery_date)
left join delivered using (tenant_id, device_id, delivery_date)
