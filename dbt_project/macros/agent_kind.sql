{# The kind of agent as the marts name it. An L3 line has no role: it comes from an agent's session. #}
{% macro agent_kind(agent_role) -%}
    case {{ agent_role }}
        when 'queen' then 'queen'
        when 'worker' then 'worker'
        when 'graph' then 'agent_run'
        when 'agent' then 'agent_session'
        else 'other'
    end
{%- endmacro %}

{# The kind of agent whose turn only its log saw: what its session is. #}
{% macro agent_kind_of_session(session_kind) -%}
    case
        when {{ session_kind }} in ('queen', 'colony_queen') then 'queen'
        when {{ session_kind }} = 'worker' then 'worker'
        when {{ session_kind }} = 'graph_run' then 'agent_run'
        else 'agent_session'
    end
{%- endmacro %}

{# Whether a session goes on after its turns and runs until somebody speaks again: a queen's, and those that a person
   leads in runtimes other than Hive. `kind`: of the session or of its agent. #}
{% macro waits_between_turns(kind, agent_runtime) -%}
    coalesce(
        {{ kind }} in ('queen', 'colony_queen') or ({{ kind }} = 'agent_session' and {{ agent_runtime }} <> 'hive'),
        false
    )
{%- endmacro %}
