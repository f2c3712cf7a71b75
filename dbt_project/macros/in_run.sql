{# Whether a row of a session happened in a run of it: all of it if it is the only run, else what no queen did meanwhile.
   `row` has agent_kind and occurred_at, `run` is_whole_session, started_at and ended_at. #}
{% macro in_run(row, run) -%}
    (
        {{ run }}.is_whole_session
        or (
            {{ row }}.agent_kind <> 'queen'
            and {{ row }}.occurred_at > {{ run }}.started_at
            and ({{ run }}.ended_at is null or {{ row }}.occurred_at <= {{ run }}.ended_at)
        )
    )
{%- endmacro %}
