{# A name that the engine knows: a misspelt one would stop the build of every mart at its first use. #}
{% test is_time_zone(model, column_name) %}
select {{ column_name }}
from {{ model }}
where {{ column_name }} not in ({{ time_zone_names() }})
{% endtest %}
