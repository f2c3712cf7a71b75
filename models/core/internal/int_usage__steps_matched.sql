{{
    config(
        materialized='incremental',
        meta={'replace': {'keys': ['tenant_id', 'session_id'], 'changed': 'changed_sessions'}}
    )
}}
{#- Microseconds. Offsets of zones are multiples of a quarter of an hour and differ by 26 hours at most. An event is
    written within `close` of its step's end; the first and the last turn of a run lie within `slack` of its steps. -#}
{%- set quarter = 900000000 -%}
{%- set most_quarters = 104 -%}
{%- set close = 60000000 -%}
{%- set slack = 900000000 -%}

{#- What an event and a step must have in common to be the same turn, the strictest first: columns, and what else must
    hold of the step and of the event, which part of the session the event is looked for in, and what must hold of both.
    Where one log keys the names of nodes under another key, or has none, any node will do. Equal ones are matched from
    the last backwards: a session that outlived an upgrade of the source has events of its last runs. What is left is one
    turn where the event was written while the step's tools ran, whatever the iteration seemed to be. -#}
{%- set any_node = 'not is_node_in_both' -%}
{%- set passes = [
    ('by_position', ['part', 'node_id', 'position', 'input_tokens', 'output_tokens'], 'true', 'true', 'part', 'true'),
    ('early', ['part', 'node_id', 'position', 'input_tokens', 'output_tokens'], 'true', 'true', 'next_part', 'true'),
    ('by_tokens', ['part', 'node_id', 'input_tokens', 'output_tokens'], 'not is_position_known', 'true', 'part', 'true'),
    ('by_position_of_any_node', ['part', 'position', 'input_tokens', 'output_tokens'], any_node, any_node, 'part', 'true'),
    ('by_tokens_of_any_node', ['part', 'input_tokens', 'output_tokens'],
     any_node ~ ' and not is_position_known', any_node, 'part', 'true'),
    ('undated', ['input_tokens', 'output_tokens'], 'true', 'at_us is null', 'part', 'true'),
    ('by_clock', ['node_id', 'input_tokens', 'output_tokens'], 'tool_started_us is not null', 'at_us is not null', 'part',
     'e.at_us between s.tool_started_us and s.tool_started_us + s.latency_us'),
] -%}

with changed as (
    {{ changed_sessions() }}
),

lines as (
    select
        s.step_id,
        s.tenant_id,
        s.session_id,
        s.node_id,
        coalesce(s.trace_id, '') as run,
        s.step_index,
        s.source_line,
        s.input_tokens,
        s.output_tokens,
        coalesce(s.is_partial, false) as is_partial,
        coalesce(s.latency_ms, 0) * 1000 as latency_us,
        {{ to_micros('s.tool_started_at') }} as tool_started_us,
        {{ to_micros('s.file_modified_at') }} as file_modified_us,
        sum(coalesce(s.latency_ms, 0) * 1000) over (
            partition by s.tenant_id, s.session_id, coalesce(s.trace_id, '')
            order by s.source_line, s.step_index, s.step_id
            rows between unbounded preceding and current row
        ) as elapsed_us,
        changed._ingest_seq
    from {{ ref('stg_wire__node_steps') }} as s
    inner join changed using (tenant_id, session_id)
),

-- A node that is run again within a run begins at 0 again.
known_steps as (
    select
        *,
        sum(case when step_index > index_before then 0 else 1 end) over (
            partition by tenant_id, session_id, run, node_id
            order by source_line, step_id
            rows between unbounded preceding and current row
        ) as execution
    from (
        select
            *,
            lag(step_index) over (
                partition by tenant_id, session_id, run, node_id order by source_line, step_id
            ) as index_before
        from lines
        where step_index >= 0
    ) as followed
),

-- A fork's copy of a step belongs to the fork where the original is gone; its event names the session of its origin.
scopes as (
    select distinct
        tenant_id,
        session_id,
        session_id as origin_session_id
    from known_steps
    union
    select
        forks.tenant_id,
        forks.session_id,
        forks.ancestor_id as origin_session_id
    from {{ ref('stg_wire__fork_ancestors') }} as forks
    inner join changed using (tenant_id, session_id)
),

step_nodes as (
    select distinct tenant_id, session_id, node_id
    from known_steps
),

-- A queen writes no steps: those of a graph that her session ran are none of her turns, whatever their tokens.
known_events as (
    select
        t.turn_id,
        t.tenant_id,
        scopes.session_id,
        t.node_id,
        t.iteration as position,
        t.input_tokens,
        t.output_tokens,
        {{ to_micros('t.occurred_at') }} as written_us
    from {{ ref('stg_wire__llm_turns') }} as t
    inner join scopes
        on t.tenant_id = scopes.tenant_id
        and t.session_id = scopes.origin_session_id
    left join step_nodes
        on scopes.tenant_id = step_nodes.tenant_id
        and scopes.session_id = step_nodes.session_id
        and t.node_id = step_nodes.node_id
    where t.agent_kind <> 'queen'
        or t.node_id is null
        or step_nodes.node_id is not null
),

-- Tokens that occur once in each log are one turn. Where its two times differ by quarters of an hour, the event's zone
-- is wrong.
shifts as (
    select
        e.tenant_id,
        e.session_id,
        e.turn_id,
        case
            when e.written_us < s.tool_started_us then e.written_us - s.tool_started_us
            when e.written_us > s.tool_started_us + s.latency_us
                then e.written_us - s.tool_started_us - s.latency_us
            else 0
        end as apart_us
    from (
        select * from known_steps
        qualify count(*) over (partition by tenant_id, session_id, input_tokens, output_tokens) = 1
    ) as s
    inner join (
        select * from known_events
        qualify count(*) over (partition by tenant_id, session_id, input_tokens, output_tokens) = 1
    ) as e
        on s.tenant_id = e.tenant_id
        and s.session_id = e.session_id
        and s.input_tokens = e.input_tokens
        and s.output_tokens = e.output_tokens
    where s.tool_started_us is not null
        and e.written_us is not null
),

shifted as (
    select
        *,
        case
            when apart_us < 0 then -(({{ quarter // 2 }} - apart_us) // {{ quarter }})
            else ({{ quarter // 2 }} + apart_us) // {{ quarter }}
        end as quarters
    from shifts
),

-- One turn alone may be another one of the same tokens.
proven_shifts as (
    select * from shifted
    where abs(quarters) <= {{ most_quarters }}
        and (quarters = 0 or abs(apart_us - quarters * {{ quarter }}) <= {{ close }})
    qualify quarters = 0
        or count(*) over (partition by tenant_id, session_id, quarters) > 1
        or count(*) over (partition by tenant_id, session_id) = 1
),

clocked_events as (
    select
        e.*,
        e.written_us - {{ quarter }} * coalesce(
            last_value(p.quarters ignore nulls) over (
                partition by e.tenant_id, e.session_id
                order by e.written_us, e.turn_id
                rows between unbounded preceding and current row
            ),
            first_value(p.quarters ignore nulls) over (
                partition by e.tenant_id, e.session_id
                order by e.written_us, e.turn_id
                rows between current row and unbounded following
            ),
            0
        ) as at_us
    from known_events as e
    left join proven_shifts as p using (tenant_id, session_id, turn_id)
),

summaries as (
    select
        tenant_id,
        session_id,
        trace_id as run,
        min({{ to_micros('started_at') }}) as started_us
    from {{ ref('stg_wire__run_summaries') }}
    group by tenant_id, session_id, trace_id
),

-- From when to when a run went on, by its dated steps. A run that begins with steps without a clock may have begun at any
-- time before; one that ends with such may have gone on until its file was written last.
run_spans as (
    select
        known_steps.tenant_id,
        known_steps.session_id,
        known_steps.run,
        min(known_steps.source_line) as first_line,
        least(
            min(known_steps.tool_started_us - known_steps.elapsed_us),
            min(summaries.started_us)
        ) as from_us,
        max(known_steps.tool_started_us + known_steps.latency_us) as last_dated_us,
        max(known_steps.elapsed_us) as elapsed_us,
        {{ earliest('known_steps.tool_started_us is not null', pair('known_steps.source_line', 'known_steps.step_id')) }}
            or min(summaries.started_us) is not null as begins_dated,
        {{ latest('known_steps.tool_started_us is not null', pair('known_steps.source_line', 'known_steps.step_id')) }}
            as ends_dated,
        max(known_steps.file_modified_us) as file_modified_us
    from known_steps
    left join summaries using (tenant_id, session_id, run)
    group by known_steps.tenant_id, known_steps.session_id, known_steps.run
),

runs as (
    select
        *,
        greatest(last_dated_us, from_us + elapsed_us) as to_us,
        case
            when from_us is null then null
            when ends_dated then greatest(last_dated_us, from_us + elapsed_us)
            when file_modified_us is not null then greatest(last_dated_us, from_us + elapsed_us, file_modified_us)
        end as latest_us,
        last_value(from_us ignore nulls) over (
            partition by tenant_id, session_id
            order by first_line, run
            rows between unbounded preceding and current row
        ) as placed_us
    from run_spans
),

-- Runs that overlap, and runs without any clock behind the one before them, cannot be told apart by time: one part.
parted_runs as (
    select
        *,
        sum(case when from_us > before_us or (from_us is not null and before_us is null) then 1 else 0 end) over (
            partition by tenant_id, session_id
            order by placed_us nulls first, from_us nulls last, first_line, run
            rows between unbounded preceding and current row
        ) as part
    from (
        select
            *,
            max(to_us) over (
                partition by tenant_id, session_id
                order by placed_us nulls first, from_us nulls last, first_line, run
                rows between unbounded preceding and 1 preceding
            ) as before_us
        from runs
    ) as preceded
),

parts as (
    select
        tenant_id,
        session_id,
        part,
        min(from_us) as from_us,
        {{ earliest('begins_dated', pair('from_us', 'run')) }} as begins_dated,
        case when bool_and(latest_us is not null) then max(latest_us) end as latest_us
    from parted_runs
    group by tenant_id, session_id, part
),

-- No event of a part is older than the part. By a clock that is a little wrong, or of a part whose first steps have none,
-- it may be: then it is looked for in the part that follows, too.
timeline as (
    select tenant_id, session_id, coalesce(from_us, 0) as at_us, cast(null as varchar) as turn_id, part
    from parts
    union all
    select tenant_id, session_id, at_us, turn_id, null as part
    from clocked_events
    where at_us is not null
),

placed_events as (
    select
        tenant_id,
        session_id,
        turn_id,
        at_us,
        last_value(part ignore nulls) over (
            partition by tenant_id, session_id
            order by at_us, turn_id nulls first
            rows between unbounded preceding and current row
        ) as part,
        first_value(part ignore nulls) over (
            partition by tenant_id, session_id
            order by at_us, turn_id nulls first
            rows between 1 following and unbounded following
        ) as next_part
    from timeline
),

parted_events as (
    select
        e.*,
        parts.part,
        next_parts.part as next_part
    from clocked_events as e
    left join placed_events as placed
        on e.tenant_id = placed.tenant_id
        and e.session_id = placed.session_id
        and e.turn_id = placed.turn_id
    -- Comparisons, and not choices with NULL or NOT: those would try every event with every part.
    left join parts
        on placed.tenant_id = parts.tenant_id
        and placed.session_id = parts.session_id
        and placed.part = parts.part
        and e.at_us <= coalesce(parts.latest_us + {{ slack }}, 9223372036854775807)
    left join parts as next_parts
        on placed.tenant_id = next_parts.tenant_id
        and placed.session_id = next_parts.session_id
        and placed.next_part = next_parts.part
        and e.at_us + case when placed.part is null then {{ slack }} else {{ close }} end
        >= case when next_parts.begins_dated then next_parts.from_us else -9223372036854775807 end
),

parted_steps as (
    select
        s.*,
        r.part
    from known_steps as s
    inner join parted_runs as r using (tenant_id, session_id, run)
),

-- A session that was restored counts its iterations on, a step log begins anew with every run.
offsets as (
    select
        s.tenant_id,
        s.session_id,
        s.run,
        s.node_id,
        s.execution,
        e.position - s.step_index as first_position,
        count(*) as turns
    from (
        select * from parted_steps
        qualify count(*) over (partition by tenant_id, session_id, part, input_tokens, output_tokens) = 1
    ) as s
    inner join (
        select * from parted_events
        qualify count(*) over (partition by tenant_id, session_id, part, input_tokens, output_tokens) = 1
    ) as e using (tenant_id, session_id, part, input_tokens, output_tokens)
    where e.position is not null
    group by s.tenant_id, s.session_id, s.run, s.node_id, s.execution, e.position - s.step_index
),

-- What most turns of the run say; where no turn of an execution says so, what most turns of the execution say.
run_offsets as (
    select
        tenant_id,
        session_id,
        run,
        {{ earliest('first_position', pair('-turns', 'first_position')) }} as first_position
    from (
        select tenant_id, session_id, run, first_position, sum(turns) as turns
        from offsets
        group by tenant_id, session_id, run, first_position
    ) as offsets_of_runs
    group by tenant_id, session_id, run
),

execution_offsets as (
    select
        offsets.tenant_id,
        offsets.session_id,
        offsets.run,
        offsets.node_id,
        offsets.execution,
        case
            when bool_or(offsets.first_position = run_offsets.first_position) then max(run_offsets.first_position)
            else {{ earliest('offsets.first_position', pair('-offsets.turns', 'offsets.first_position')) }}
        end as first_position
    from offsets
    inner join run_offsets using (tenant_id, session_id, run)
    group by offsets.tenant_id, offsets.session_id, offsets.run, offsets.node_id, offsets.execution
),

event_nodes as (
    select distinct tenant_id, session_id, node_id
    from known_events
),

steps as (
    select
        s.*,
        s.step_index + coalesce(execution_offsets.first_position, run_offsets.first_position, 0) as position,
        coalesce(execution_offsets.first_position, run_offsets.first_position) is not null as is_position_known,
        event_nodes.node_id is not null as is_node_in_both
    from parted_steps as s
    left join execution_offsets using (tenant_id, session_id, run, node_id, execution)
    left join run_offsets using (tenant_id, session_id, run)
    left join event_nodes
        on s.tenant_id = event_nodes.tenant_id
        and s.session_id = event_nodes.session_id
        and s.node_id = event_nodes.node_id
),

events as (
    select
        e.*,
        step_nodes.node_id is not null as is_node_in_both
    from parted_events as e
    left join step_nodes
        on e.tenant_id = step_nodes.tenant_id
        and e.session_id = step_nodes.session_id
        and e.node_id = step_nodes.node_id
),

{%- for name, columns, step_condition, event_condition, event_part, both in passes %}
{%- set earlier = 'matches_' ~ passes[loop.index0 - 1][0] %}

{%- for side, id, order, condition, part in [
    ('steps', 'step_id', 'source_line desc, step_id desc', step_condition, 'part'),
    ('events', 'turn_id', 'at_us desc, turn_id desc', event_condition, event_part),
] %}
{{ side }}_{{ name }} as (
    select
        *,
        row_number() over (
            partition by tenant_id, session_id, {{ columns | join(', ') | replace('part', part) }}
            order by {{ order }}
        ) as place
    from {{ side }}
    where {{ condition }}
        {%- if name != passes[0][0] %}
        and not exists (
            select 1
            from {{ earlier }} as matched
            where matched.tenant_id = {{ side }}.tenant_id
                and matched.session_id = {{ side }}.session_id
                and matched.{{ id }} = {{ side }}.{{ id }}
        )
        {%- endif %}
),
{%- endfor %}

matches_{{ name }} as (
    {%- if not loop.first %}
    select * from {{ earlier }}
    union all
    {%- endif %}
    select
        s.tenant_id,
        s.session_id,
        s.step_id,
        e.turn_id,
        e.at_us
    from steps_{{ name }} as s
    inner join events_{{ name }} as e
        on s.tenant_id = e.tenant_id
        and s.session_id = e.session_id
        {%- for column in columns %}
        and s.{{ column }} = e.{{ column | replace('part', event_part) }}
        {%- endfor %}
        and s.place = e.place
        {%- if both != 'true' %}
        and {{ both }}
        {%- endif %}
),
{%- endfor %}
{%- set equal = 'matches_' ~ passes[-1][0] %}

placed_steps as (
    select
        steps.*,
        matched.turn_id,
        matched.at_us,
        last_value(matched.at_us ignore nulls) over (
            partition by steps.tenant_id, steps.session_id, steps.run
            order by steps.source_line, steps.step_index, steps.step_id
            rows between unbounded preceding and 1 preceding
        ) as event_before_us,
        first_value(matched.at_us ignore nulls) over (
            partition by steps.tenant_id, steps.session_id, steps.run
            order by steps.source_line, steps.step_index, steps.step_id
            rows between 1 following and unbounded following
        ) as event_after_us,
        count(matched.turn_id) over (partition by steps.tenant_id, steps.session_id, steps.run) > 0 as run_has_events
    from steps
    left join {{ equal }} as matched using (tenant_id, session_id, step_id)
),

-- Run, node, iteration and time agree and the tokens do not: one turn that the two logs count otherwise.
other_tokens as (
    select
        s.tenant_id,
        s.session_id,
        s.step_id,
        e.turn_id,
        e.at_us
    from (
        select
            *,
            row_number() over (
                partition by tenant_id, session_id, part, node_id, position order by source_line desc, step_id desc
            ) as place
        from placed_steps
        where turn_id is null
            and is_position_known
            and not (is_partial and input_tokens + output_tokens = 0)
    ) as s
    inner join (
        select
            *,
            row_number() over (
                partition by tenant_id, session_id, part, node_id, position order by at_us desc, turn_id desc
            ) as place
        from events
        where not exists (
            select 1
            from {{ equal }} as matched
            where matched.tenant_id = events.tenant_id
                and matched.session_id = events.session_id
                and matched.turn_id = events.turn_id
        )
    ) as e
        on s.tenant_id = e.tenant_id
        and s.session_id = e.session_id
        and s.part = e.part
        and s.node_id = e.node_id
        and s.position = e.position
        and s.place = e.place
    where e.at_us between
        coalesce(s.tool_started_us - {{ close }}, s.event_before_us)
        and coalesce(s.tool_started_us + s.latency_us + {{ close }}, s.event_after_us)
),

event_sessions as (
    select distinct tenant_id, session_id
    from known_events
)

select
    s.step_id,
    s.tenant_id,
    s.session_id,
    coalesce(s.turn_id, other_tokens.turn_id) as turn_id,
    case
        when s.turn_id is not null then 'same_turn'
        when other_tokens.turn_id is not null then 'other_tokens'
        -- A step that died is tried again; where events are written, one that was billed has an event.
        when s.is_partial and s.input_tokens + s.output_tokens = 0 and s.run_has_events then 'died'
        when event_sessions.session_id is not null then 'unmatched'
        else 'alone'
    end as match_rule,
    s.input_tokens,
    s.output_tokens,
    {{ from_micros('coalesce(s.at_us, other_tokens.at_us)') }} as event_at,
    s._ingest_seq
from placed_steps as s
left join other_tokens using (tenant_id, session_id, step_id)
left join event_sessions
    on s.tenant_id = event_sessions.tenant_id
    and s.session_id = event_sessions.session_id
