{{
    config(
        materialized='incremental',
        meta={'max_rows_per_input_row': 40, 'replace': {'keys': ['tenant_id', 'session_id'], 'changed': 'changed_sessions'}}
    )
}}

with changed as (
    {{ changed_sessions() }}
),

events as (
    select
        tenant_id,
        session_id,
        event_date as activity_date,
        {{ fingerprint(["'event'", 'status_event_id', 'kind', 'agent_kind', 'node_id', 'model', 'verdict']) }} as _fingerprint
    from {{ ref('fct_status_events') }}
),

exits as (
    select
        tenant_id,
        session_id,
        exit_date as activity_date,
        {{ fingerprint(["'exit'", 'node_exit_id', 'exit_status', 'latency_ms']) }} as _fingerprint
    from {{ ref('fct_node_exits') }}
),

-- A run is at work on every day from its start to its end; without an end on the day of its start alone.
runs as (
    select
        tenant_id,
        session_id,
        cast(started_date + cast(day_number as integer) as date) as activity_date,
        {{ fingerprint(["'run'", 'run_key', 'parent_session_id', 'outcome', 'started_at', 'ended_at']) }} as _fingerprint
    from (
        select
            *,
            {{ numbers_between(0, days_between('started_date', utc_date(believed_end('started_at', 'ended_at')))) }} as day_number
        from {{ ref('fct_agent_runs') }}
        where started_at is not null
    ) as days
),

rows_of_days as (
    select * from events
    union all
    select * from exits
    union all
    select * from runs
),

built as (
    select
        rows_of_days.tenant_id,
        rows_of_days.session_id,
        rows_of_days.activity_date,
        {{ fingerprint_of_all('rows_of_days._fingerprint') }} as _fingerprint
    from rows_of_days
    inner join changed using (tenant_id, session_id)
    group by rows_of_days.tenant_id, rows_of_days.session_id, rows_of_days.activity_date
),

{{ session_day_pairs('activity_date') }}

select
    pairs.session_id,
    pairs.tenant_id,
    pairs.activity_date,
    built._fingerprint,
    {% if is_incremental() -%}
    case
        when stored._fingerprint is not distinct from built._fingerprint
            then coalesce(stored._ingest_seq, changed._ingest_seq)
        else changed._ingest_seq
    end as _ingest_seq
    {%- else -%}
    changed._ingest_seq
    {%- endif %}
from pairs
inner join changed using (tenant_id, session_id)
left join built using (tenant_id, session_id, activity_date)
{% if is_incremental() -%}
left join stored using (tenant_id, session_id, activity_date)
{%- endif %}
