{# What a book leaves unexplained: nothing. A residue that is not known is none that is zero. #}
{% test is_zero(model, column_name) %}
select {{ column_name }}
from {{ model }}
where {{ column_name }} is distinct from 0
{% endtest %}
