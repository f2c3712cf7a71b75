{{ config(materialized='view') }}

-- What the closed statements of an account say of a line, all of them together: its last word that was not taken back.
-- A line that moved to another account is gone from the one and late in the other: each has a book of its own.
with numbered as (
    select
        *,
        row_number() over (
            partition by tenant_id, line_id, billing_account_id
            order by seal_seq desc, line_kind = 'reversal'
        ) as place
    from {{ ref('stg_billing__closed_lines') }}
)

select * exclude (place)
from numbered
where place = 1 and line_kind <> 'reversal'
