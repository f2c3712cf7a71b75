{{
    config(
        materialized='incremental',
        incremental_strategy='replace_changed',
        on_schema_change='fail',
        meta={'replace': {'keys': ['tenant_id', 'usage_date'], 'changed': 'changed_rating_days'}}
    )
}}

with changed as (
    {{ changed_rating_days() }}
),

lines as (
    select
        l.*,
        changed._rating_seq as _changed_seq
    from {{ ref('fct_rated_lines') }} as l
    inner join changed
        on l.tenant_id = changed.tenant_id
        and l.usage_date = changed.usage_date
),

kinds as (
    select *, 'unpriced' as exception_kind
    from lines
    where rating_status = 'unpriced' and quantity > 0
    union all
    select *, 'unattributed' as exception_kind
    from lines
    where billing_account_id = 'UNATTRIBUTED' and quantity > 0
    union all
    select *, 'tier_ambiguous' as exception_kind
    from lines
    where is_tier_ambiguous and low_cost < high_cost
    union all
    select *, 'cache_ttl_unknown' as exception_kind
    from lines
    where component = 'cache_write_unknown' and not is_tier_ambiguous and rating_status <> 'unpriced'
        and low_cost < high_cost
)

select
    {{ id_of([
        'exception_kind', 'tenant_id', 'usage_date', 'billing_account_id', 'currency', 'model', 'component'
    ]) }} as exception_id,
    billing_account_id,
    tenant_id,
    exception_kind,
    model,
    component,
    currency,
    cast(count(*) as bigint) as lines,
    cast(sum(quantity) as bigint) as quantity,
    cast(sum(contracted_cost) as decimal(38, 15)) as contracted_cost,
    cast(sum(low_cost) as decimal(38, 15)) as low_cost,
    cast(sum(high_cost) as decimal(38, 15)) as high_cost,
    usage_date,
    max(_ingest_seq) as _ingest_seq,
    max(_changed_seq) as _rating_seq
from kinds
group by billing_account_id, tenant_id, exception_kind, model, component, currency, usage_date
