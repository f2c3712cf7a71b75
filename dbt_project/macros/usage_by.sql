{# The usage of each tenant and UTC day, of one column's values apart where a column is named: sums of agg_usage_session_daily
   on days that changed. #}
{% macro usage_by(column=none) -%}
with changed as (
    {{ changed_usage_days() }}
),

sessions as (
    select
        daily.*,
        changed._ingest_seq as changed_seq,
        changed._rating_seq as changed_rating_seq
    from {{ ref('agg_usage_session_daily') }} as daily
    inner join changed using (tenant_id, usage_date)
)

select
    sessions.tenant_id,
    {%- if column %}
    sessions.{{ column }},
    {%- endif %}
    cast(sum(sessions.turns) as bigint) as turns,
    cast(sum(sessions.input_tokens) as bigint) as input_tokens,
    cast(sum(sessions.cache_read_input_tokens) as bigint) as cache_read_input_tokens,
    cast(sum(sessions.cache_write_input_tokens) as bigint) as cache_write_input_tokens,
    cast(sum(sessions.output_tokens) as bigint) as output_tokens,
    cast(sum(sessions.tool_calls) as bigint) as tool_calls,
    cast(sum(sessions.unreported_turns) as bigint) as unreported_turns,
    cast(sum(sessions.unpriced_turns) as bigint) as unpriced_turns,
    cast(sum(sessions.unpriced_tokens) as bigint) as unpriced_tokens,
    sum(sessions.reported_cost_usd) as reported_cost_usd,
    sum(sessions.rated_cost_usd) as rated_cost_usd,
    sum(sessions.rated_cost_low_usd) as rated_cost_low_usd,
    sum(sessions.rated_cost_high_usd) as rated_cost_high_usd,
    sessions.usage_date,
    max(sessions.changed_seq) as _ingest_seq,
    max(sessions.changed_rating_seq) as _rating_seq
from sessions
group by sessions.tenant_id, {% if column %}sessions.{{ column }}, {% endif %}sessions.usage_date
{%- endmacro %}
