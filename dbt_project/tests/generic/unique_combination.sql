{# No two rows share the columns. NULL equals NULL here: a missing part of a key does not make rows different. #}
{% test unique_combination(model, columns) %}
select {{ columns | join(', ') }}
from {{ model }}
group by {{ columns | join(', ') }}
having count(*) > 1
{% endtest %}
