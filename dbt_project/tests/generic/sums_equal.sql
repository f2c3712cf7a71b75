{# The sum of each measure is the same on both sides, group by group. Nothing and zero are equal, NULL and zero are not:
   an unreported cost must not turn into a cost of zero on the way. #}
{% test sums_equal(model, to, group_by, measures) %}
with left_side as (
    select
        {{ group_by | join(', ') }}
        {%- for measure in measures %},
        sum({{ measure }}) as {{ measure }}
        {%- endfor %}
    from {{ model }}
    group by {{ group_by | join(', ') }}
),

right_side as (
    select
        {{ group_by | join(', ') }}
        {%- for measure in measures %},
        sum({{ measure }}) as {{ measure }}
        {%- endfor %}
    from {{ to }}
    group by {{ group_by | join(', ') }}
)

select
    coalesce({% for measure in measures %}left_side.{{ measure }}, {% endfor %}0) as left_value,
    coalesce({% for measure in measures %}right_side.{{ measure }}, {% endfor %}0) as right_value
from left_side
full outer join right_side
    on {% for key in group_by -%}
    left_side.{{ key }} is not distinct from right_side.{{ key }}{{ ' and ' if not loop.last }}
    {%- endfor %}
where {% for measure in measures -%}
    {%- if measure.endswith('_usd') -%}
    left_side.{{ measure }} is distinct from right_side.{{ measure }}
    {%- else -%}
    coalesce(left_side.{{ measure }}, 0) <> coalesce(right_side.{{ measure }}, 0)
    {%- endif -%}
    {{ ' or ' if not loop.last }}
{% endfor %}
{% endtest %}
