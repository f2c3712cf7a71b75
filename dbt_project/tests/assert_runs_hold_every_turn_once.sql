-- A worker's turn is in its run, and no turn is in two: runs of one session do not share what they used.
{{ config(meta={'dagster': {'ref': {'name': 'fct_agent_runs'}}}) }}
with runs as (
    select tenant_id, session_id, sum(turns) as turns
    from {{ ref('fct_agent_runs') }}
    group by tenant_id, session_id
),

turns as (
    select
        turns.tenant_id,
        turns.session_id,
        count(*) as turns
    from {{ ref('fct_llm_turns') }} as turns
    group by turns.tenant_id, turns.session_id
)

select runs.tenant_id, runs.session_id, runs.turns as in_runs, turns.turns as counted
from runs
left join turns using (tenant_id, session_id)
left join {{ ref('dim_sessions') }} as sessions using (tenant_id, session_id)
where runs.turns > coalesce(turns.turns, 0)
    or (sessions.session_kind = 'worker' and runs.turns <> coalesce(turns.turns, 0))
