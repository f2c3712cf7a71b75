{# The measure sums up to the number of rows on the other side, group by group: no row lost, none counted twice. #}
{% test counts_equal(model, to, group_by, measure) %}
with left_side as (
    select {{ group_by | join(', ') }}, sum({{ measure }}) as counted
    from {{ model }}
    group by {{ group_by | join(', ') }}
),

right_side as (
    select {{ group_by | join(', ') }}, count(*) as counted
    from {{ to }}
    group by {{ group_by | join(', ') }}
)

select
    left_side.counted as left_value,
    right_side.counted as right_value
from left_side
full outer join right_side
    on {% for key in group_by -%}
    left_side.{{ key }} is not distinct from right_side.{{ key }}{{ ' and ' if not loop.last }}
    {%- endfor %}
where coalesce(left_side.counted, 0) <> coalesce(right_side.counted, 0)
{% endtest %}
