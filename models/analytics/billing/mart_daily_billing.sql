{{
    config(
        materialized='incremental',
        meta={'replace': {'keys': ['tenant_id', 'usage_date'], 'changed': 'changed_days'}}
    )
}}

with changed as (
    {{ changed_days() }}
),

daily as (
    select * from {{ ref('agg_usage_session_daily') }}
),

-- What stays of usage that was erased: it was billed, and names nobody.
kept as (
    select charges.*
    from {{ ref('stg_wire__kept_charges') }} as charges
    {%- if is_incremental() %}
    inner join changed
        on charges.tenant_id = changed.tenant_id
        and charges.usage_date = changed.usage_date
    {%- endif %}
),

-- Days with tool calls only have nothing to bill.
usage as (
    select
        daily.tenant_id,
        daily.user_id,
        daily.model,
        daily.usage_date,
        sum(daily.input_tokens) as input_tokens,
        sum(daily.cache_read_input_tokens) as cache_read_input_tokens,
        sum(daily.cache_write_input_tokens) as cache_write_input_tokens,
        sum(daily.output_tokens) as output_tokens,
        sum(daily.unreported_turns) as unreported_turns,
        sum(daily.reported_cost_usd) as reported_cost_usd,
        max(changed._ingest_seq) as _ingest_seq
    from daily
    inner join changed
        on daily.tenant_id = changed.tenant_id
        and daily.usage_date = changed.usage_date
    where daily.turns > 0
    group by daily.tenant_id, daily.user_id, daily.model, daily.usage_date
),

-- The input includes the cache; each token is charged in one class. The cost has a row of its own: on the token rows
-- it would be summed four times.
charges as (
    select
        *,
        'input_uncached' as charge_class,
        'tokens' as unit,
        0 as charge_unreported_turns,
        cast(input_tokens - cache_read_input_tokens - cache_write_input_tokens as decimal(38, 20)) as quantity
    from usage
    union all
    select
        *,
        'cache_read' as charge_class,
        'tokens' as unit,
        0 as charge_unreported_turns,
        cast(cache_read_input_tokens as decimal(38, 20)) as quantity
    from usage
    union all
    select
        *,
        'cache_write' as charge_class,
        'tokens' as unit,
        0 as charge_unreported_turns,
        cast(cache_write_input_tokens as decimal(38, 20)) as quantity
    from usage
    union all
    select
        *,
        'output' as charge_class,
        'tokens' as unit,
        0 as charge_unreported_turns,
        cast(output_tokens as decimal(38, 20)) as quantity
    from usage
    union all
    select
        *,
        'reported_cost' as charge_class,
        'usd' as unit,
        unreported_turns as charge_unreported_turns,
        reported_cost_usd as quantity
    from usage
)

select
    tenant_id,
    user_id,
    model,
    charge_class,
    unit,
    cast(charge_unreported_turns as bigint) as unreported_turns,
    quantity,
    usage_date,
    _ingest_seq
from charges
union all
select
    tenant_id,
    'ERASED' as user_id,
    model,
    charge_class,
    unit,
    cast(sum(unreported_turns) as bigint) as unreported_turns,
    sum(quantity) as quantity,
    usage_date,
    cast(0 as bigint) as _ingest_seq
from kept
group by tenant_id, model, charge_class, unit, usage_date
