{{ config(materialized='view') }}

-- What closed statements keep of usage whose owner had it erased: an amount and a day. Where it had moved, and the other
-- account has been billed for it, it is to be given back to this one.
-- Not of int_billing__sealed_lines_in_force, which orders every line that was ever sealed: these are few.
with in_force as (
    select
        *,
        row_number() over (
            partition by tenant_id, line_id, billing_account_id
            order by seal_seq desc, line_kind = 'reversal'
        ) as place
    from {{ ref('stg_billing__closed_lines') }}
    where coalesce(record_id, user_id, '') = 'ERASED'
)

select
    * exclude (place),
    max(seal_seq) over (partition by tenant_id, line_id) > seal_seq as is_taken_over
from in_force
where place = 1 and line_kind <> 'reversal'
