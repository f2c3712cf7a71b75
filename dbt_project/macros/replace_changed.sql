{# incremental_strategy='replace_changed': delete every changed key from the target, insert the new rows, in one
   transaction. Unlike delete+insert it also removes keys that have no new row: a turn that events retracted, a day
   that lost its last turn.

   A model names its keys and its query of changed keys (changed.sql) in its config:
       meta={'replace': {'keys': ['tenant_id', 'session_id'], 'changed': 'changed_sessions'}}
   The query is rendered again here, before anything is deleted: it must still see the old watermark. #}
{% macro get_incremental_replace_changed_sql(arg_dict) %}
    {%- set replace = config.get('meta', {}).get('replace') -%}
    {%- if not replace or replace['changed'] not in context -%}
        {{ exceptions.raise_compiler_error('replace_changed needs meta.replace: keys, and the macro of changed keys') }}
    {%- endif -%}
    {%- set columns = get_quoted_csv(arg_dict['dest_columns'] | map(attribute='name')) -%}
    {%- set keys = replace['keys'] | join(', ') -%}

    delete from {{ arg_dict['target_relation'] }}
    where ({{ keys }}) in (
        select {{ keys }} from ({{ context[replace['changed']]() }}) as changed
    );

    insert into {{ arg_dict['target_relation'] }} ({{ columns }})
    select {{ columns }} from {{ arg_dict['temp_relation'] }};
{% endmacro %}
