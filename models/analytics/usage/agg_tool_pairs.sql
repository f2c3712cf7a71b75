with session_tools as (
    select * from {{ ref('int_usage__session_tools') }}
),

-- A basket is what one session used: a worker's whole run, a queen's whole talk.
baskets as (
    select
        tenant_id,
        count(distinct session_id) as sessions
    from session_tools
    group by tenant_id
),

singles as (
    select
        tenant_id,
        tool_name,
        count(*) as sessions
    from session_tools
    group by tenant_id, tool_name
),

-- A pair is used together no more often than each of its tools; and a session that used very many would be paired with
-- itself, each by each.
ranked as (
    select
        *,
        row_number() over (partition by tenant_id order by sessions desc, tool_name) as tool_position
    from singles
    where sessions >= {{ var('tool_pair_min_runs') }}
),

paired_tools as (
    select
        session_tools.tenant_id,
        session_tools.session_id,
        session_tools.tool_name
    from session_tools
    inner join ranked using (tenant_id, tool_name)
    where ranked.tool_position <= {{ var('tool_pair_max_tools') }}
),

pairs as (
    select
        first_tools.tenant_id,
        first_tools.tool_name as first_tool_name,
        second_tools.tool_name as second_tool_name,
        count(*) as sessions
    from paired_tools as first_tools
    inner join paired_tools as second_tools
        on first_tools.tenant_id = second_tools.tenant_id
        and first_tools.session_id = second_tools.session_id
        and first_tools.tool_name < second_tools.tool_name
    group by first_tools.tenant_id, first_tools.tool_name, second_tools.tool_name
    having count(*) >= {{ var('tool_pair_min_runs') }}
)

select
    pairs.tenant_id,
    pairs.first_tool_name,
    pairs.second_tool_name,
    pairs.sessions,
    first_singles.sessions as first_sessions,
    second_singles.sessions as second_sessions,
    baskets.sessions as all_sessions,
    {{ share('pairs.sessions', 'baskets.sessions') }} as support,
    {{ share('pairs.sessions', 'first_singles.sessions') }} as first_to_second_confidence,
    {{ share('pairs.sessions', 'second_singles.sessions') }} as second_to_first_confidence,
    {{ share('pairs.sessions * baskets.sessions', '(first_singles.sessions * second_singles.sessions)') }} as lift
from pairs
inner join baskets using (tenant_id)
inner join singles as first_singles
    on pairs.tenant_id = first_singles.tenant_id
    and pairs.first_tool_name = first_singles.tool_name
inner join singles as second_singles
    on pairs.tenant_id = second_singles.tenant_id
    and pairs.second_tool_name = second_singles.tool_name
