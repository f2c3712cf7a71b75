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

-- Turns and names of a session in one order, a name before the turns of its instant: what it had named last.
followed as (
    select
        *,
        last_value(named_model ignore nulls) over (
            partition by tenant_id, session_id order by occurred_at, is_turn, turn_id
            rows between unbounded preceding and current row
        ) as last_model
    from (
        select
            governed.*,
            true as is_turn,
            cast(null as varchar) as named_model
        from governed
        union all
        select
            tenant_id,
            session_id,
            cast(null as varchar) as turn_id,
            cast(null as date) as usage_date,
            occurred_at,
            cast(null as varchar) as rule,
            cast(null as varchar) as default_model,
            false as is_turn,
            model as named_model
        from named
    ) as turns_and_names
),

-- Else what it named first after.
found as (
    select
        followed.tenant_id,
        followed.turn_id,
        followed.usage_date,
        followed.rule,
        followed.default_model,
        case when followed.rule = 'session' then coalesce(followed.last_model, first_named.model) end as session_model
    from followed
    left join first_named using (tenant_id, session_id)
    where followed.is_turn
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
