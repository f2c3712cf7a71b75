{# A task's state in our words. The worker's model writes the status: what it improvises is `other`, never a guess. #}
{% macro task_state(status) -%}
    case
        when {{ status }} = 'pending' then 'open'
        when {{ status }} in ('claimed', 'in_progress', 'started') then 'working'
        when {{ status }} in ('done', 'completed') then 'done'
        when {{ status }} = 'failed' then 'failed'
        else 'other'
    end
{%- endmacro %}
