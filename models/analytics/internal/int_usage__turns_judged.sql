{{
    config(
        materialized='incremental',
        meta={'replace': {'keys': ['tenant_id', 'session_id'], 'changed': 'changed_sessions'}}
    )
}}

with changed as (
    {{ changed_sessions() }}
),

turns as (
    select
        t.turn_id,
        t.tenant_id,
        t.session_id,
        t.turn_source,
        t.stop_reason,
        t.usage_date,
        t.occurred_at,
        coalesce(events._received_at, steps._received_at) as received_at,
        changed._ingest_seq
    from {{ ref('fct_llm_turns') }} as t
    inner join changed using (tenant_id, session_id)
    left join {{ ref('stg_wire__llm_turns') }} as events using (tenant_id, turn_id)
    left join {{ ref('stg_wire__node_steps') }} as steps
        on t.tenant_id = steps.tenant_id
        and t.turn_id = steps.step_id
),

calls as (
    select
        c.tool_call_id,
        c.tenant_id,
        c.session_id,
        coalesce(c.tool_name, 'unknown') as tool_name,
        wire.origin,
        wire.step_id,
        c.occurred_at
    from {{ ref('fct_tool_calls') }} as c
    inner join changed using (tenant_id, session_id)
    inner join {{ ref('stg_wire__tool_calls') }} as wire using (tenant_id, tool_call_id)
),

events as (
    select
        e.status_event_id,
        e.tenant_id,
        e.session_id,
        case e.kind
            when 'tool_replayed' then 'replayed'
            when 'input_received' then 'input'
            else 'stalled'
        end as mark,
        e.occurred_at
    from {{ ref('stg_wire__status_events') }} as e
    inner join changed using (tenant_id, session_id)
    where e.kind in ('tool_replayed', 'stalled', 'doom_loop', 'inactive', 'input_received')
        and e.occurred_at is not null
),

ends as (
    select
        r.record_id,
        r.tenant_id,
        r.session_id,
        case
            when r.kind = 'failed' or r.outcome in ('failed', 'timeout') then 'failed'
            when r.kind = 'cancelled' or r.outcome = 'stopped' then 'cancelled'
            else 'none'
        end as mark,
        r.occurred_at
    from {{ ref('stg_wire__agent_runs') }} as r
    inner join changed using (tenant_id, session_id)
    where r.kind in ('completed', 'failed', 'cancelled', 'report')
        and r.occurred_at is not null
),

-- One line of time for each session. A turn's event is written after its calls and its troubles, and before the end of
-- its run: so they stand at one instant.
timeline as (
    select tool_call_id as record_id, tenant_id, session_id, 'call' as what, tool_name as mark, 1 as place, occurred_at
    from calls
    where origin = 'event'
    union all
    select status_event_id as record_id, tenant_id, session_id, 'event' as what, mark, 1 as place, occurred_at
    from events
    union all
    select turn_id as record_id, tenant_id, session_id, 'turn' as what, null as mark, 2 as place, occurred_at
    from turns
    union all
    select record_id, tenant_id, session_id, 'end' as what, mark, 3 as place, occurred_at
    from ends
),

numbered as (
    select
        *,
        count(*) filter (where what = 'turn') over (
            partition by tenant_id, session_id
            order by occurred_at, place, record_id
            rows between unbounded preceding and current row
        ) as turns_before,
        count(*) filter (where what = 'turn') over (partition by tenant_id, session_id) as turns_of_session
    from timeline
),

-- What stands before a turn is the turn's; calls after the last turn are the last one's.
before_turns as (
    select
        tenant_id,
        session_id,
        least(turns_before + 1, turns_of_session) as turn_number,
        bool_or(what = 'event' and mark = 'replayed' and turns_before < turns_of_session) as is_replayed,
        bool_or(what = 'event' and mark = 'stalled' and turns_before < turns_of_session) as is_stalled,
        bool_or(what = 'event' and mark = 'input' and turns_before < turns_of_session) as has_input,
        min(mark) filter (where what = 'call') as first_tool,
        max(mark) filter (where what = 'call') as last_tool
    from numbered
    where what in ('call', 'event')
    group by tenant_id, session_id, least(turns_before + 1, turns_of_session)
),

-- A run ends once; where two logs say how, the worse is believed.
after_turns as (
    select
        tenant_id,
        session_id,
        turns_before as turn_number,
        case
            when bool_or(mark = 'failed') then 'failed'
            when bool_or(mark = 'cancelled') then 'cancelled'
            else 'none'
        end as mark
    from numbered
    where what = 'end'
    group by tenant_id, session_id, turns_before
),

step_tools as (
    select
        tenant_id,
        step_id,
        min(tool_name) as first_tool,
        max(tool_name) as last_tool
    from calls
    where origin = 'step'
    group by tenant_id, step_id
),

numbered_turns as (
    select
        turns.*,
        numbered.turns_before as turn_number
    from turns
    inner join numbered
        on turns.tenant_id = numbered.tenant_id
        and turns.session_id = numbered.session_id
        and turns.turn_id = numbered.record_id
        and numbered.what = 'turn'
),

joined as (
    select
        numbered_turns.*,
        coalesce(before_turns.first_tool, step_tools.first_tool) as first_tool,
        coalesce(before_turns.last_tool, step_tools.last_tool) as last_tool,
        coalesce(before_turns.is_replayed, false) as is_replayed,
        coalesce(before_turns.is_stalled, false) as is_stalled,
        coalesce(before_turns.has_input, false) as has_input,
        first_value(after_turns.mark ignore nulls) over (
            partition by numbered_turns.tenant_id, numbered_turns.session_id
            order by numbered_turns.turn_number
            rows between current row and unbounded following
        ) as run_mark
    from numbered_turns
    left join before_turns using (tenant_id, session_id, turn_number)
    left join step_tools
        on numbered_turns.tenant_id = step_tools.tenant_id
        and numbered_turns.turn_id = step_tools.step_id
    left join after_turns using (tenant_id, session_id, turn_number)
),

streaks as (
    select
        *,
        sum(case when first_tool is not null or has_input then 1 else 0 end) over (
            partition by tenant_id, session_id
            order by turn_number
            rows between unbounded preceding and current row
        ) as streak
    from joined
)

select
    turn_id,
    tenant_id,
    session_id,
    -- One value for a turn, so that tokens by tool add up to all tokens: money is not cut into shares.
    case
        when first_tool is null then 'none'
        when first_tool = last_tool then first_tool
        else 'several'
    end as tool_name,
    case
        when stop_reason = 'cancelled' or run_mark = 'cancelled' then 'cancelled'
        when stop_reason = 'error' or run_mark = 'failed' then 'failed'
        when is_replayed then 'replayed'
        when is_stalled then 'stalled'
        else 'none'
    end as waste_kind,
    turn_number,
    -- Turns in a row, this one included, that neither called a tool nor had a person's word before them.
    cast(
        case
            when first_tool is not null then 0
            else row_number() over (partition by tenant_id, session_id, streak order by turn_number)
                - case
                    when first_value(first_tool is not null) over (
                        partition by tenant_id, session_id, streak order by turn_number
                    ) then 1
                    else 0
                end
        end as bigint
    ) as idle_turns,
    usage_date,
    occurred_at,
    received_at,
    _ingest_seq
from streaks
