{# `relationships` for keys of several columns: a session id alone would also match another tenant's. #}
{% test exists_in(model, columns, to, to_columns) %}
select {% for column in columns %}child.{{ column }}{{ ', ' if not loop.last }}{% endfor %}
from {{ model }} as child
where not exists (
    select 1
    from {{ to }} as parent
    where {% for column in columns -%}
        parent.{{ to_columns[loop.index0] }} = child.{{ column }}{{ ' and ' if not loop.last }}
    {%- endfor %}
)
{% endtest %}
