{{
    config(
        materialized='incremental',
        meta={'replace': {'keys': ['tenant_id', 'device_id', 'delivery_date'], 'changed': 'changed_device_days'}}
    )
}}

with changed as (
    {{ changed_device_days() }}
),

files as (
    select
        files.*,
        changed.delivery_date,
        changed._ingest_seq as changed_seq
    from {{ ref('stg_wire__source_files') }} as files
    inner join changed
        on files.tenant_id = changed.tenant_id
        and files._device_id = changed.device_id
        and files.observed_date = changed.delivery_date
)

select
    files.tenant_id,
    files._device_id as device_id,
    files.agent_runtime,
    files.source_kind,
    coalesce(files.source_layout, 'other') as source_layout,
    coalesce(batches.uploader_version, 'unknown') as uploader_version,
    cast(count(*) as bigint) as files_read,
    cast(sum(files.lines_seen) as bigint) as lines_seen,
    cast(sum(files.lines_skipped) as bigint) as lines_skipped,
    cast(sum(coalesce(files.lines_unknown, 0)) as bigint) as lines_unknown,
    cast(sum(coalesce(files.fields_unknown, 0)) as bigint) as fields_unknown,
    files.delivery_date,
    max(files.changed_seq) as _ingest_seq
from files
left join {{ ref('stg_wire__batches') }} as batches
    on files._manifest_key = batches.manifest_key
group by
    files.tenant_id, files._device_id, files.agent_runtime, files.source_kind, coalesce(files.source_layout, 'other'),
    coalesce(batches.uploader_version, 'unknown'), files.delivery_date
