with source as (
    select * from {{ source('ledger', 'closed_lines') }}
)

select * from source
