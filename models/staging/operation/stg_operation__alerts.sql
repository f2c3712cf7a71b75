with source as (
    select * from {{ source('operation', 'alerts') }}
)

select
    alert_id,
    kind as alert_kind,
    subject as subject_id,
    run_id,
    raised_at as occurred_at
from source
