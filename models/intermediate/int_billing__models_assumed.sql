{{ config(materialized='view') }}

-- Turns whose source names no model, where somebody declared as what they are rated (decision 0076). Without such a
-- policy there is no row, and they have no price.
with policies as (
    select * from {{ ref('stg_billing__model_policies') }}
),

turns as (
    select
        tenant_id,
        session_id,
        turn_id,
        model,
        usage_date,
        occurred_at
    from {{ ref('fct_llm_turns') }}
    where exists (select 1 from policies)
),

-- A word about everybody is one about each tenant.
stated as (
    select
        tenant_id,
        true as is_own,
        rule,
        default_model,
        valid_from,
        valid_to,
        recorded_at
    from policies
    where tenant_id is not null
    union all
    select
        tenants.tenant_id,
        false as is_own,
        policies.rule,
        policies.default_model,
        policies.valid_from,
        policies.valid_to,
        policies.recorded_at
    from policies
    cross join (select distinct tenant_id from turns where model = 'unknown') as tenants
    where policies.tenant_id is null
),

-- One about the tenant itself goes first; of two, the one recorded last.
governed as (
    select
        turns.tenant_id,
        turns.session_id,
        turns.turn_id,
        turns.usage_date,
        turns.occurred_at,
        stated.rule,
        stated.default_model
    from turns
    inner join stated
        on turns.tenant_id = stated.tenant_id
        and turns.usage_date >= stated.valid_from
        and turns.usage_date < coalesce(stated.valid_to, date '9999-12-31')
    where turns.model = 'unknown'
    qualify row_number() over (
        partition by turns.tenant_id, turns.turn_id
        order by stated.is_own desc, stated.recorded_at desc
    ) = 1
),

-- The model that a session named at an instant.
named as (
    select
        turns.tenant_id,
        turns.session_id,
        turns.occurred_at,
        {{ latest('turns.model', 'turns.turn_id') }} as model
    from turns
    where turns.model <> 'unknown'
        and exists (
            select 1 from governed
            where governed.tenant_id = turns.tenant_id
                and governed.session_id = turns.session_id
                and governed.rule = 'session'
        )
    group by turns.tenant_id, turns.session_id, turns.occurred_at
),

first_named as (
    select
        tenant_id,
        session_id,
        {{ earliest('model', 'occurred_at') }} as model
    from named
    group by tenant_id, session_id
),

-- What it had named last, else what it named first after.
found as (
    select
        governed.*,
        case when governed.rule = 'session' then coalesce(named.model, first_named.model) end as session_model
    from governed
    asof left join named
        on governed.tenant_id = named.tenant_id
        and governed.session_id = named.session_id
        and governed.occurred_at >= named.occurred_at
    left join first_named
        on governed.tenant_id = first_named.tenant_id
        and governed.session_id = first_named.session_id
)

select
    tenant_id,
    turn_id,
    usage_date,
    coalesce(session_model, default_model) as model,
    case when session_model is not null then 'session' else 'default' end as model_basis
from found
where rule <> 'unknown'
    and coalesce(session_model, default_model) is not null
