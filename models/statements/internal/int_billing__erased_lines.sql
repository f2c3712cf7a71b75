{{ config(materialized='view') }}

-- What closed statements keep of usage whose owner had it erased: an amount and a day. Where it had moved, and several
-- accounts have been billed for it, it is whose day it is today, or else the last one's: the others get it back. A seat is
-- the last one's: whose it is a plan says, and not the day.
-- Not of int_billing__sealed_lines_in_force, which orders every line that was ever sealed: these are few.
with in_force as (
    {{ lines_in_force("coalesce(record_id, user_id, '') = 'ERASED'") }}
)

select
    in_force.*,
    row_number() over (
        partition by in_force.line_id, case when in_force.record_id is not null then in_force.tenant_id end
        order by in_force.record_id is not null and accounts.tenant_id is null, in_force.seal_seq desc
    ) > 1 as is_taken_over
from in_force
left join {{ ref('dim_billing_accounts') }} as accounts
    on in_force.tenant_id = accounts.tenant_id
    and in_force.billing_account_id = accounts.billing_account_id
    and in_force.charge_start_date >= accounts.valid_from
    and (accounts.valid_to is null or in_force.charge_start_date < accounts.valid_to)
