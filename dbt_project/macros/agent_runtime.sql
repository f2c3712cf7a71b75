{# The agent runtime that wrote a row. Rows from before there were several say none: all of them are Hive's. #}
{% macro agent_runtime(column) -%}
    coalesce({{ column }}, 'hive')
{%- endmacro %}
