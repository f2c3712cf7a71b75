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
