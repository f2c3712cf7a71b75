{# Tables of Parquet. What replaces a table is written beside it: a build that fails or is killed leaves the earlier one,
   or, between the last two statements, none, and the next build makes it from the start. #}
{% materialization table, adapter='apiaryspark' %}
    {%- set target = this.incorporate(type='table') -%}
    {{ run_hooks(pre_hooks) }}
    {% do write_model(aside(target), compiled_code) %}
    {% do put_in_place(target) %}
    {{ run_hooks(post_hooks) }}
    {{ return({'relations': [target]}) }}
{% endmaterialization %}

{# Views are tables here: Spark would work them out again in each of the models that read them. #}
{% materialization view, adapter='apiaryspark' %}
    {%- set target = this.incorporate(type='table') -%}
    {{ run_hooks(pre_hooks) }}
    {% do write_model(aside(target), compiled_code) %}
    {% do put_in_place(target) %}
    {{ run_hooks(post_hooks) }}
    {{ return({'relations': [target]}) }}
{% endmaterialization %}

{# `replace_changed` of the warehouse (dbt_project/macros/replace_changed.sql): rows of changed keys give way to the new
   ones. Files of Parquet are not changed, so what stays is written again, with the new rows. #}
{% materialization incremental, adapter='apiaryspark' %}
    {%- set target = this.incorporate(type='table') -%}
    {{ run_hooks(pre_hooks) }}
    {%- if is_incremental() -%}
        {%- set replace = config.get('meta', {}).get('replace') -%}
        {%- set new = target.incorporate(path={'identifier': target.identifier ~ '__new'}) -%}
        {%- set changed = target.incorporate(path={'identifier': target.identifier ~ '__changed'}) -%}
        {%- set keys = replace['keys'] | join(', ') -%}
        {% do write_model(new, compiled_code) %}
        {% do write_parquet(changed, adapter.translated('select distinct ' ~ keys ~ ' from (' ~ context[replace['changed']]() ~ ') as changed')) %}
        {% call statement('columns', fetch_result=True) -%} select * from {{ target }} limit 0 {%- endcall %}
        {%- set columns = load_result('columns')['table'].column_names -%}
        {%- set listed = '`' ~ columns | join('`, `') ~ '`' -%}
        {% do write_parquet(aside(target),
            'select ' ~ listed ~ ' from ' ~ target ~ ' as stored where not exists (select 1 from ' ~ changed ~ ' as changed where '
            ~ key_equality(replace['keys']) ~ ') union all select ' ~ listed ~ ' from ' ~ new) %}
        {% do drop_table(new) %}
        {% do drop_table(changed) %}
    {%- else -%}
        {% do write_model(aside(target), compiled_code) %}
    {%- endif -%}
    {% do put_in_place(target) %}
    {{ run_hooks(post_hooks) }}
    {{ return({'relations': [target]}) }}
{% endmaterialization %}

{% macro key_equality(keys) -%}
    {%- for key in keys -%} stored.{{ key }} = changed.{{ key }}{{ ' and ' if not loop.last }}{%- endfor -%}
{%- endmacro %}

{% macro aside(target) -%}
    {{ return(target.incorporate(path={'identifier': target.identifier ~ '__aside'})) }}
{%- endmacro %}

{% macro write_parquet(relation, query) -%}
    {% do drop_table(relation) %}
    {% call statement('main') -%}
        create table {{ relation }} using parquet as
        {{ query }}
    {%- endcall %}
{%- endmacro %}

{# A model in the parts that the adapter sees in it; what the parts wrote goes with the last. #}
{% macro write_model(relation, sql) -%}
    {%- set parts = adapter.parts(sql, relation, model) -%}
    {%- for part in parts -%}
        {% do write_parquet(part.table or relation, part.query) %}
        {%- if part.step -%} {% do add_steps(part.table, part.step) %} {%- endif -%}
    {%- endfor -%}
    {%- for part in parts if part.table -%} {% do drop_table(part.table) %} {%- endfor -%}
{%- endmacro %}

{# The steps of a recursion, until one adds no row. More than these are none of ours. #}
{% macro add_steps(table, step) -%}
    {%- set state = namespace(is_over=false) -%}
    {% do write_parquet(table ~ '__last', 'select * from ' ~ table) %}
    {%- for _ in range(1000) if not state.is_over -%}
        {% do write_parquet(table ~ '__next', step) %}
        {%- set state.is_over = run_query('select 1 from ' ~ table ~ '__next limit 1').rows | length == 0 -%}
        {% call statement('add') -%} insert into {{ table }} select * from {{ table }}__next {%- endcall %}
        {% do drop_table(table ~ '__last') %}
        {% call statement('rename') -%} alter table {{ table }}__next rename to {{ table }}__last {%- endcall %}
    {%- endfor -%}
    {% do drop_table(table ~ '__last') %}
    {%- if not state.is_over -%} {{ exceptions.raise_compiler_error('a recursion did not end: ' ~ table) }} {%- endif -%}
{%- endmacro %}

{% macro drop_table(relation) -%}
    {% call statement('drop') -%} drop table if exists {{ relation }} {%- endcall %}
{%- endmacro %}

{% macro put_in_place(target) -%}
    {%- set existing = load_cached_relation(this) -%}
    {%- if existing is not none -%}
        {% call statement('drop_existing') -%} drop {{ existing.type }} if exists {{ target }} {%- endcall %}
    {%- endif -%}
    {% call statement('rename') -%} alter table {{ aside(target) }} rename to {{ target }} {%- endcall %}
{%- endmacro %}

{% macro apiaryspark__get_test_sql(main_sql, fail_calc, warn_if, error_if, limit) -%}
    {{ default__get_test_sql(adapter.translated(main_sql), fail_calc, warn_if, error_if, limit) }}
{%- endmacro %}
