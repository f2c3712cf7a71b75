{# Schemas are named exactly as dbt_project.yml names them: readers and asset keys name them, so no target prefix. #}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {{ target.schema if custom_schema_name is none else custom_schema_name | trim }}
{%- endmacro %}
