{{
    config(
        materialized='incremental',
        meta={'replace': {'keys': ['tenant_id', 'usage_date'], 'changed': 'changed_exception_days'}}
    )
}}

{%- set kind_columns = [
    'record_id', 'billing_account_id', 'tenant_id', 'model', 'component', 'currency', 'quantity', 'contracted_cost',
    'low_cost', 'high_cost', 'usage_date', '_ingest_seq', '_rating_seq', 'exception_kind'
] | join(', ') %}

with changed as (
    {{ changed_exception_days() }}
),

lines as (
    select
        l.record_id,
        l.billing_account_id,
        l.tenant_id,
        l.session_id,
        l.model,
        l.component,
        l.rating_status,
        l.currency,
        l.quantity,
        l.contracted_cost,
        l.low_cost,
        l.high_cost,
        l.is_tier_ambiguous,
        l.is_convention_unknown,
        l.usage_date,
        l._ingest_seq,
        changed._rating_seq
    from {{ ref('fct_rated_lines') }} as l
    inner join changed using (tenant_id, usage_date)
),

-- One record told twice with other facts: the first is billed, and nobody knows that it was the true one.
conflicts as (
    select
        tenant_id,
        record_id,
        max(_ingest_seq) as _ingest_seq
    from {{ ref('stg_wire__conflicts') }}
    group by tenant_id, record_id
),

-- What is wrong with a turn is wrong with all its components.
turns_in_question as (
    select
        lines.* replace ('all' as component, greatest(lines._ingest_seq, conflicts._ingest_seq) as _ingest_seq),
        'conflict' as exception_kind
    from lines
    inner join conflicts
        on lines.tenant_id = conflicts.tenant_id
        and lines.record_id = conflicts.record_id
    union all
    select
        lines.* replace ('all' as component, lines._ingest_seq as _ingest_seq),
        'implausible' as exception_kind
    from lines
    inner join {{ ref('fct_llm_turns') }} as turns
        on lines.tenant_id = turns.tenant_id
        and lines.record_id = turns.turn_id
    where turns.is_implausible
    union all
    -- Two logs tell one turn with other tokens. The event counts.
    select
        lines.* replace ('all' as component, lines._ingest_seq as _ingest_seq),
        'step_mismatch' as exception_kind
    from lines
    inner join {{ ref('fct_llm_turns') }} as turns
        on lines.tenant_id = turns.tenant_id
        and lines.record_id = turns.turn_id
    where turns.count_basis = 'event_against_step'
    union all
    -- Several users have the session, and nothing tells whose it was: on nobody's account until somebody says it.
    select
        lines.* replace ('all' as component, lines._ingest_seq as _ingest_seq),
        'user_conflict' as exception_kind
    from lines
    inner join {{ ref('int_sessions__tree_resolved') }} as sessions
        on lines.tenant_id = sessions.tenant_id
        and lines.session_id = sessions.session_id
    where sessions.user_basis = 'conflict'
),

-- A held turn is in no other mart. It stands on the day that it claims; nobody knows what it costs.
held as (
    select
        held.turn_id as record_id,
        coalesce(accounts.billing_account_id, 'UNATTRIBUTED') as billing_account_id,
        held.tenant_id,
        'unknown' as model,
        'all' as component,
        coalesce(accounts.currency, 'USD') as currency,
        held.input_tokens + held.output_tokens as quantity,
        cast(null as decimal(38, 15)) as contracted_cost,
        cast(null as decimal(38, 15)) as low_cost,
        cast(null as decimal(38, 15)) as high_cost,
        changed.usage_date,
        cast(0 as bigint) as _ingest_seq,
        changed._rating_seq,
        'future_dated' as exception_kind
    from {{ ref('mart_held_turns') }} as held
    inner join changed
        on held.tenant_id = changed.tenant_id
        and {{ utc_date('held.occurred_at') }} = changed.usage_date
    left join {{ ref('dim_billing_accounts') }} as accounts
        on held.tenant_id = accounts.tenant_id
        and changed.usage_date >= accounts.valid_from
        and changed.usage_date < coalesce(accounts.valid_to, date '9999-12-31')
),

-- Usage lines whose numbers are none stayed on the device: nobody knows what they were worth, nor when they were.
refused as (
    select
        coalesce(accounts.billing_account_id, 'UNATTRIBUTED') as billing_account_id,
        days.tenant_id,
        coalesce(accounts.currency, 'USD') as currency,
        sum(days.turn_lines_rejected) as turns,
        changed.usage_date,
        max(changed._rating_seq) as _rating_seq
    from {{ ref('int_delivery__device_days') }} as days
    inner join changed
        on days.tenant_id = changed.tenant_id
        and days.delivery_date = changed.usage_date
    left join {{ ref('dim_billing_accounts') }} as accounts
        on days.tenant_id = accounts.tenant_id
    where days.turn_lines_rejected > 0
        and days.device_id <> 'ERASED'
    group by
        coalesce(accounts.billing_account_id, 'UNATTRIBUTED'),
        days.tenant_id,
        coalesce(accounts.currency, 'USD'),
        changed.usage_date
),

kinds_of_lines as (
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
    union all
    -- Nobody said how its source counts cache tokens, and the numbers do not tell: the least is charged.
    select *, 'cache_convention_unknown' as exception_kind
    from lines
    where is_convention_unknown
),

kinds as (
    select {{ kind_columns }}
    from kinds_of_lines
    union all
    select {{ kind_columns }}
    from turns_in_question
    union all
    select {{ kind_columns }}
    from held
),

questions as (
    select
        billing_account_id,
        tenant_id,
        exception_kind,
        model,
        component,
        currency,
        count(distinct record_id) as turns,
        count(*) as lines,
        sum(quantity) as quantity,
        sum(contracted_cost) as contracted_cost,
        sum(low_cost) as low_cost,
        -- Of lines that may cost anything the most is not known.
        case when bool_and(high_cost is not null) then sum(high_cost) end as high_cost,
        usage_date,
        max(_ingest_seq) as _ingest_seq,
        max(_rating_seq) as _rating_seq
    from kinds
    group by billing_account_id, tenant_id, exception_kind, model, component, currency, usage_date
    union all
    select
        billing_account_id,
        tenant_id,
        'refused' as exception_kind,
        'unknown' as model,
        'all' as component,
        currency,
        turns,
        turns as lines,
        0 as quantity,
        null as contracted_cost,
        null as low_cost,
        null as high_cost,
        usage_date,
        cast(0 as bigint) as _ingest_seq,
        _rating_seq
    from refused
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
    cast(turns as bigint) as turns,
    cast(lines as bigint) as lines,
    cast(quantity as bigint) as quantity,
    cast(contracted_cost as decimal(38, 15)) as contracted_cost,
    cast(low_cost as decimal(38, 15)) as low_cost,
    cast(high_cost as decimal(38, 15)) as high_cost,
    usage_date,
    _ingest_seq,
    _rating_seq
from questions
