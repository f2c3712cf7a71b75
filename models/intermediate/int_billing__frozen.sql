{{ config(materialized='view') }}

-- No month was ever closed: nothing is frozen, and there is nothing to correct.
select
    coalesce(max(case when is_frozen then billing_period end), date '0001-01-01') as closed_through,
    coalesce(min(case when status <> 'closed' then billing_period end), date '0001-01-01') as correction_period
from {{ ref('stg_billing__periods') }}
