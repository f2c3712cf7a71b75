-- Each turn's session is one of the sessions: they are built after the bill, from the same turns.
{{ config(meta={'dagster': {'ref': {'name': 'dim_sessions'}}}) }}
select tenant_id, session_id
from {{ ref('fct_llm_turns') }}
except
select tenant_id, session_id
from {{ ref('dim_sessions') }}
