{{
    config(
        materialized='incremental',
        meta={'replace': {'keys': ['tenant_id', 'session_id'], 'changed': 'changed_sessions'}}
    )
}}

with changed as (
    {{ changed_sessions() }}
),

sessions as (
    select
        s.*,
        changed._ingest_seq,
        case s.evidence
            when 'worker_meta' then 1
            when 'meta' then 2
            when 'event' then 3
        end as testimony_rank
    from {{ ref('stg_wire__sessions') }} as s
    inner join changed using (tenant_id, session_id)
),

-- Every row that only uses the session still proves that it exists, and may know its parent, its user and its kind.
mentions as (
    {%- for relation, parent_session_id, agent_kind in [
        ('stg_wire__llm_turns', 'parent_session_id', 'agent_kind'),
        ('stg_wire__tool_calls', 'parent_session_id', 'agent_kind'),
        ('stg_wire__agent_runs', 'parent_session_id', 'null'),
        ('stg_wire__node_steps', 'null', "'agent_session'"),
        ('stg_wire__sessions', 'null', 'null'),
        ('stg_wire__status_events', 'parent_session_id', 'agent_kind'),
        ('stg_wire__triggers', 'null', 'null'),
    ] %}
    select
        rows_of_wire.tenant_id,
        rows_of_wire.session_id,
        {{ parent_session_id }} as parent_session_id,
        rows_of_wire.agent_runtime,
        rows_of_wire.region,
        {{ agent_kind }} as agent_kind,
        rows_of_wire._device_id,
        rows_of_wire._received_at,
        {{ loop.index }} as source_rank,
        changed._ingest_seq
    from {{ ref(relation) }} as rows_of_wire
    inner join changed using (tenant_id, session_id)
    {%- if not loop.last %}
    union all
    {%- endif %}
    {%- endfor %}
),

mentioned as (
    select
        tenant_id,
        session_id,
        min(region) as region,
        min(agent_runtime) as agent_runtime,
        coalesce(
            min(nullif(parent_session_id, session_id)) filter (where source_rank = 1),
            min(nullif(parent_session_id, session_id)) filter (where source_rank = 2),
            min(nullif(parent_session_id, session_id)) filter (where source_rank = 3),
            min(nullif(parent_session_id, session_id)) filter (where source_rank = 6)
        ) as parent_session_id,
        max(_received_at) as last_received_at,
        -- The device that spoke last of it: whether it still speaks decides what silence means.
        {{ latest('_device_id', pair('_received_at', '_device_id')) }} as device_id,
        max(_ingest_seq) as _ingest_seq
    from mentions
    group by tenant_id, session_id
),

claimed_kinds as (
    select tenant_id, session_id, session_kind
    from sessions
    where session_kind is not null
    union all
    select
        tenant_id,
        session_id,
        case agent_kind when 'agent_run' then 'graph_run' else agent_kind end as session_kind
    from mentions
    where agent_kind is not null
),

-- A graph run shares the session of its queen: what leads a session names it, not what was seen last.
ranked_kinds as (
    select
        *,
        case session_kind
            when 'colony_queen' then 1
            when 'queen' then 2
            when 'worker' then 3
            when 'secondary_graph' then 4
            when 'legacy_run' then 5
            when 'graph_run' then 6
            when 'agent_session' then 7
            else 8
        end as kind_rank
    from claimed_kinds
),

kinds as (
    select
        tenant_id,
        session_id,
        {{ earliest('session_kind', 'kind_rank') }} as session_kind
    from ranked_kinds
    group by tenant_id, session_id
),

-- record_id ends every order: without it two observations of one instant would be ranked by chance.
ranked as (
    select
        *,
        nullif(coalesce(parent_session_id, forked_from_session_id), session_id) as stated_parent_id,
        case
            when (
                clock_rank is not distinct from min(clock_rank) filter (where started_at is not null) over (
                    partition by tenant_id, session_id
                )
            ) then started_at
        end as believed_start,
        row_number() over (
            partition by tenant_id, session_id order by observed_at nulls first, record_id
        ) as observation_position,
        row_number() over (
            partition by tenant_id, session_id order by testimony_rank desc, observed_at nulls first, record_id
        ) as testimony_position
    from sessions
),

observed as (
    select
        tenant_id,
        session_id,
        {{ latest('case when testimony_rank is not null then stated_parent_id end', 'testimony_position') }}
            as stated_parent_id,
        min(stated_parent_id) as found_under_id,
        {{ latest('forked_from_session_id', 'observation_position') }} as forked_from_session_id,
        {{ latest('colony_name', 'observation_position') }} as colony_name,
        {{ latest('queen_name', 'observation_position') }} as queen_name,
        {{ latest('agent_name', 'observation_position') }} as agent_name,
        {{ latest('profile_name', 'observation_position') }} as profile_name,
        {{ latest('agent_type', 'observation_position') }} as agent_type,
        {{ latest('project_id', 'observation_position') }} as project_id,
        {{ latest('entrypoint', 'observation_position') }} as entrypoint,
        {{ latest('channel', 'observation_position') }} as channel,
        {{ latest('batch_size', 'observation_position') }} as batch_size,
        {{ latest('batch_index', 'observation_position') }} as batch_index,
        {{ latest('status', 'observation_position') }} as status,
        bool_and(is_copy) as is_copy,
        -- What a state or a worker's file says; without that the time in the session's name, which is cut to the second.
        -- The source may overwrite the start on every restore: the earliest claim holds.
        coalesce(
            min(believed_start) filter (where evidence in ('state', 'worker_meta')), min(believed_start)
        ) as started_at,
        {{ latest('updated_at', 'observation_position') }} as updated_at,
        {{ latest('ended_at', 'observation_position') }} as ended_at
    from ranked
    group by tenant_id, session_id
)

select
    mentioned.session_id,
    mentioned.tenant_id,
    mentioned.region,
    mentioned.agent_runtime,
    coalesce(claimed.user_id, 'UNATTRIBUTED') as user_id,
    coalesce(claimed.user_basis, 'none') as user_basis,
    -- A fork copies the folders of its parent's workers: where a folder lies speaks last, and the oldest id then.
    coalesce(observed.stated_parent_id, mentioned.parent_session_id, observed.found_under_id) as parent_session_id,
    observed.forked_from_session_id,
    observed.colony_name,
    observed.queen_name,
    -- A queen's state names an agent too; seen without her other file she passes for one.
    case
        when kinds.session_kind in ('agent_session', 'secondary_graph', 'legacy_run') then observed.agent_name
    end as agent_name,
    observed.profile_name,
    observed.agent_type,
    observed.project_id,
    observed.entrypoint,
    observed.channel,
    kinds.session_kind,
    observed.status,
    mentioned.device_id,
    observed.batch_size,
    observed.batch_index,
    coalesce(observed.is_copy, false) as is_copy,
    observed.started_at,
    observed.updated_at,
    observed.ended_at,
    mentioned.last_received_at,
    mentioned._ingest_seq
from mentioned
left join observed using (tenant_id, session_id)
left join kinds using (tenant_id, session_id)
left join {{ ref('int_sessions__users_claimed') }} as claimed using (tenant_id, session_id)
