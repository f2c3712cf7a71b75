select
    tenant_id,
    session_id,
    usage_date,
    max(occurred_at) as last_turn_at,
    max(received_at) as received_at
from {{ ref('int_usage__turns_judged') }}
group by tenant_id, session_id, usage_date
