with sessions as (
    select * from {{ ref('int_agents__sessions_assigned') }}
),

-- Sessions that used nothing say nothing of the model; of two that began at one instant the later id speaks.
instants as (
    select
        *,
        row_number() over (
            partition by tenant_id, agent_id, started_at order by session_id desc
        ) as position_in_instant
    from sessions
    where model is not null
        and started_at is not null
),

compared as (
    select
        *,
        lag(model) over (partition by tenant_id, agent_id order by started_at, session_id) as model_before
    from instants
    where position_in_instant = 1
),

swaps as (
    select
        tenant_id,
        agent_id,
        model,
        started_at as valid_from
    from compared
    where model is distinct from model_before
),

agents as (
    select
        tenant_id,
        agent_id,
        min(agent_role) as agent_role,
        min(agent_name) as agent_name,
        count(*) as sessions,
        min(started_at) as first_seen_at,
        max(last_seen_at) as last_seen_at
    from sessions
    group by tenant_id, agent_id
),

fired as (
    select
        tenant_id,
        agent_id,
        min(acted_at) as fired_at,
        count(*) as fires
    from {{ ref('stg_wire__operator_actions') }}
    where action = 'fire'
    group by tenant_id, agent_id
),

-- An agent of whom no model is known has one version, from its first sign of life on.
versions as (
    select
        agents.*,
        swaps.model,
        coalesce(swaps.valid_from, agents.first_seen_at) as changed_at
    from agents
    left join swaps using (tenant_id, agent_id)
),

numbered as (
    select
        *,
        row_number() over (partition by tenant_id, agent_id order by changed_at, model) as version,
        lead(changed_at) over (partition by tenant_id, agent_id order by changed_at, model) as changed_again_at
    from versions
)

select
    numbered.tenant_id,
    numbered.agent_id,
    numbered.agent_role,
    numbered.agent_name,
    numbered.model,
    numbered.version,
    numbered.sessions,
    coalesce(fired.fires, 0) as fires,
    numbered.changed_again_at is null as is_current,
    fired.fired_at is not null as is_fired,
    case when numbered.version = 1 then least(numbered.first_seen_at, numbered.changed_at) else numbered.changed_at end
        as valid_from,
    numbered.changed_again_at as valid_to,
    numbered.first_seen_at,
    numbered.last_seen_at,
    fired.fired_at as terminated_at
from numbered
left join fired using (tenant_id, agent_id)
