{# What one column's test cannot see; a device would refuse the whole snapshot for any of these. #}
{% test is_budget(model) %}
select budget_id
from {{ model }}
where (scope = 'tenant') <> (scope_id is null)
    or not (warn_at > 0 and warn_at <= 1)
    or (measure <> 'reported_cost_usd' and unpriced_limit_tokens is not null)
    or (measure <> 'reported_cost_usd' and limit_amount <> floor(limit_amount))
    or coalesce(valid_to <= valid_from, false)
{% endtest %}
