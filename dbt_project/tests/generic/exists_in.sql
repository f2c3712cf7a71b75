{# `relationships` for keys of several columns: a session id alone would also match another tenant's. A key with a NULL
   part refers to nothing. #}
{% test exists_in(model, columns, to, to_columns) %}
with child as (
    select {{ columns | join(', ') }}
    from {{ model }}
    where {% for column in columns %}{{ column }} is not null{{ ' and ' if not loop.last }}{% endfor %}
),

parent as (
    select {{ to_columns | join(', ') }}
    from {{ to }}
)

select {{ columns | join(', ') }}
from child
where not exists (
    select 1
    from parent
    where {% for column in columns -%}
        parent.{{ to_columns[loop.index0] }} = child.{{ column }}{{ ' and ' if not loop.last }}
    {%- endfor %}
)
{% endtest %}
