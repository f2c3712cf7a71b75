with recursive sessions as (
    select * from {{ ref('int_sessions__observations_merged') }}
),

colonies as (
    select * from {{ ref('int_colonies__observations_merged') }}
),

-- What somebody decided of a session that two users have.
decided as (
    select
        tenant_id,
        session_id,
        {{ latest('user_id', 'recorded_at') }} as user_id
    from {{ ref('stg_billing__session_users') }}
    group by tenant_id, session_id
),

{{ ancestors_of_sessions() }},

tops as (
    select
        tenant_id,
        session_id,
        {{ latest('ancestor_id', 'depth') }} as ancestor_id,
        {{ latest('path', 'depth') }} as path
    from ancestors
    group by tenant_id, session_id
),

-- In a cycle nobody is the top: its smallest id stands for all, so that its members share one root.
roots as (
    select
        tops.tenant_id,
        tops.session_id,
        tops.path,
        case
            when {{ path_holds('tops.path', 'sessions.parent_session_id') }}
                then {{ path_minimum_from('tops.path', 'sessions.parent_session_id') }}
            else tops.ancestor_id
        end as root_session_id
    from tops
    left join sessions
        on tops.tenant_id = sessions.tenant_id
        and tops.ancestor_id = sessions.session_id
),

colonies_above as (
    select
        ancestors.tenant_id,
        ancestors.session_id,
        ancestors.depth,
        colonies.colony_id,
        colonies.colony_name
    from ancestors
    inner join colonies
        on ancestors.tenant_id = colonies.tenant_id
        and ancestors.ancestor_id = colonies.colony_id
),

led as (
    select
        tenant_id,
        session_id,
        {{ earliest('colony_id', 'depth') }} as colony_id,
        {{ earliest('colony_name', 'depth') }} as leading_colony_name
    from colonies_above
    group by tenant_id, session_id
),

-- Two colonies of a tenant may bear one name: the one that leads the session goes first, else the smallest id. To join
-- sessions and colonies by name would make as many rows as both have of it, multiplied.
led_by_name as (
    select
        tenant_id,
        session_id,
        colony_name,
        {{ earliest('colony_id', 'depth') }} as colony_id
    from colonies_above
    group by tenant_id, session_id, colony_name
),

names as (
    select
        tenant_id,
        colony_name,
        min(colony_id) as colony_id
    from colonies
    group by tenant_id, colony_name
)

select
    sessions.session_id,
    sessions.tenant_id,
    coalesce(decided.user_id, sessions.user_id) as user_id,
    case when decided.user_id is not null then 'decided' else sessions.user_basis end as user_basis,
    sessions.parent_session_id,
    roots.root_session_id,
    case
        when sessions.colony_name is null then led.colony_id
        else coalesce(led_by_name.colony_id, names.colony_id)
    end as colony_id,
    coalesce(sessions.colony_name, led.leading_colony_name) as colony_name,
    {{ path_steps('roots.path', 'roots.root_session_id') }} as depth
from sessions
inner join roots using (tenant_id, session_id)
left join led using (tenant_id, session_id)
left join led_by_name using (tenant_id, session_id, colony_name)
left join names using (tenant_id, colony_name)
left join decided using (tenant_id, session_id)
