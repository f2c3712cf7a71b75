-- A note, not a stop: the agents' runtime writes what nobody has looked at yet. A reader that learns it makes an end of
-- it, so only what was read in the 30 days before the last arrival counts.
{{ config(severity='warn', meta={'dagster': {'ref': {'name': 'mart_unknown_records'}}}) }}

select
    tenant_id,
    source_kind,
    source_layout,
    uploader_version,
    sum(lines_unknown) as lines_unknown,
    sum(fields_unknown) as fields_unknown
from {{ ref('mart_unknown_records') }}
where lines_unknown + fields_unknown > 0
    and delivery_date > (select max(received_date) - 30 from {{ ref('stg_wire__batches') }})
group by tenant_id, source_kind, source_layout, uploader_version
