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
    select * from {{ ref('int_sessions__observations_merged') }}
),

-- All lines of a log take part: those that do not count took time too, and an event tells when its step ended.
steps as (
    select
        s.*,
        matched.match_rule,
        {{ to_micros('s.tool_started_at') }} as tool_started_us,
        coalesce(
            {{ to_micros('s.tool_started_at') }},
            {{ to_micros('matched.event_at') }} - coalesce(s.latency_ms, 0) * 1000
        ) as known_us,
        changed._ingest_seq
    from {{ ref('stg_wire__node_steps') }} as s
    inner join changed using (tenant_id, session_id)
    left join {{ ref('int_usage__steps_matched') }} as matched using (tenant_id, session_id, step_id)
),

summaries as (
    select
        s.tenant_id,
        s.session_id,
        s.trace_id,
        min({{ to_micros('s.started_at') }}) as started_us
    from {{ ref('stg_wire__run_summaries') }} as s
    inner join changed using (tenant_id, session_id)
    group by s.tenant_id, s.session_id, s.trace_id
),

session_summaries as (
    select
        tenant_id,
        session_id,
        min(started_us) as started_us
    from summaries
    group by tenant_id, session_id
),

-- Microseconds from the start of the run to the start of the step.
elapsed as (
    select
        *,
        cast(
            coalesce(
                sum(coalesce(latency_ms, 0)) over (
                    partition by tenant_id, session_id, trace_id
                    order by source_line, step_index, step_id
                    rows between unbounded preceding and 1 preceding
                ),
                0
            ) * 1000 as bigint
        ) as elapsed_us
    from steps
),

-- When the run would have started according to the dated step before, else the one after.
anchored as (
    select
        *,
        last_value(known_us - elapsed_us ignore nulls) over (
            partition by tenant_id, session_id, trace_id
            order by source_line, step_index, step_id
            rows between unbounded preceding and 1 preceding
        ) as anchor_before_us,
        first_value(known_us - elapsed_us ignore nulls) over (
            partition by tenant_id, session_id, trace_id
            order by source_line, step_index, step_id
            rows between 1 following and unbounded following
        ) as anchor_after_us
    from elapsed
),

dated as (
    select
        anchored.*,
        coalesce(
            {{ possible_micros('anchored.known_us') }},
            {{ possible_micros('anchored.anchor_before_us + anchored.elapsed_us') }},
            {{ possible_micros('anchored.anchor_after_us + anchored.elapsed_us') }},
            {{ possible_micros('summaries.started_us + anchored.elapsed_us') }}
        ) as dated_us
    from anchored
    left join summaries using (tenant_id, session_id, trace_id)
),

dated_lines as (
    select
        *,
        case when dated_us is not null then source_line end as dated_line
    from dated
),

-- The nearest dated lines of the session's other runs, before and after.
neighboured as (
    select
        *,
        last_value(dated_us ignore nulls) over preceding_lines as before_us,
        last_value(dated_line ignore nulls) over preceding_lines as before_line,
        first_value(dated_us ignore nulls) over following_lines as after_us,
        first_value(dated_line ignore nulls) over following_lines as after_line
    from dated_lines
    window
        preceding_lines as (
            partition by tenant_id, session_id
            order by source_line, step_index, step_id
            rows between unbounded preceding and 1 preceding
        ),
        following_lines as (
            partition by tenant_id, session_id
            order by source_line, step_index, step_id
            rows between 1 following and unbounded following
        )
),

borrowed as (
    select
        *,
        case
            when after_us is null then before_us
            when before_us is null then after_us
            when after_line - source_line < source_line - before_line then after_us
            else before_us
        end as neighbour_us
    from neighboured
),

resolved as (
    select
        borrowed.*,
        coalesce(
            borrowed.dated_us,
            borrowed.neighbour_us,
            session_summaries.started_us,
            {{ to_micros('sessions.started_at') }},
            {{ to_micros('borrowed.file_modified_at') }},
            {{ to_micros('borrowed._received_at') }}
        ) as occurred_us,
        case
            when borrowed.tool_started_us is not null then 'tool_start'
            when borrowed.dated_us is not null and coalesce(borrowed.anchor_before_us, borrowed.anchor_after_us) is not null
                then 'run_interpolated'
            when borrowed.dated_us is not null then 'run_start'
            when borrowed.neighbour_us is not null then 'run_interpolated'
            when session_summaries.started_us is not null then 'run_start'
            when sessions.started_at is not null then 'session_start'
            when borrowed.file_modified_at is not null then 'file_mtime'
            else 'received'
        end as time_basis
    from borrowed
    left join session_summaries using (tenant_id, session_id)
    left join sessions using (tenant_id, session_id)
)

select
    resolved.step_id,
    resolved.tenant_id,
    resolved.session_id,
    resolved.node_id,
    resolved.match_rule,
    resolved.time_basis,
    resolved.input_tokens,
    resolved.output_tokens,
    {{ is_held(from_micros('resolved.occurred_us'), 'resolved._received_at') }} as is_held,
    {{ from_micros('resolved.occurred_us') }} as occurred_at,
    resolved._received_at as received_at,
    resolved._ingest_seq
from resolved
left join {{ ref('stg_wire__released') }} as released
    on resolved.tenant_id = released.tenant_id
    and resolved.step_id = released.turn_id
where resolved.match_rule in ('unmatched', 'alone')
