{# Measures of usage summed, but those named. #}
{% macro usage_sums(relation, without=[]) -%}
    {%- for measure in [
        'turns', 'input_tokens', 'cache_read_input_tokens', 'cache_write_input_tokens', 'output_tokens', 'tool_calls',
        'tool_errors', 'unreported_turns', 'unreported_tokens', 'unpriced_turns', 'unpriced_tokens'
    ] if measure not in without -%}
    cast(sum({{ relation }}.{{ measure }}) as bigint) as {{ measure }},
    {% endfor -%}
    sum({{ relation }}.reported_cost_usd) as reported_cost_usd,
    sum({{ relation }}.rated_cost_usd) as rated_cost_usd,
    sum({{ relation }}.rated_cost_low_usd) as rated_cost_low_usd,
    sum({{ relation }}.rated_cost_high_usd) as rated_cost_high_usd
{%- endmacro %}

{# The common table expressions `session_days` and `measures`, the turns and tool calls of them, of a model of usage with its
   `changed` days. `is_judged`: with the tool and the kind of waste of each. #}
{% macro usage_measures(is_judged=false) -%}
session_days as (
    select
        pairs.tenant_id,
        pairs.session_id,
        pairs.user_id,
        pairs.colony_id,
        pairs.time_zone,
        pairs.usage_date,
        changed._ingest_seq,
        changed._rating_seq
    from {{ ref('int_analytics__session_days') }} as pairs
    inner join changed using (tenant_id, usage_date)
),

turns as (
    select
        rated.tenant_id,
        t.session_id,
        t.agent_kind,
        t.agent_runtime,
        t.model,
        {%- if is_judged %}
        judged.tool_name,
        judged.waste_kind,
        {%- endif %}
        1 as turns,
        t.input_tokens,
        t.cache_read_input_tokens,
        t.cache_write_input_tokens,
        t.output_tokens,
        0 as tool_calls,
        0 as tool_errors,
        case when t.reported_cost_usd is null then 1 else 0 end as unreported_turns,
        case when t.reported_cost_usd is null then t.input_tokens + t.output_tokens else 0 end as unreported_tokens,
        case when rated.rated_cost_usd is null then 1 else 0 end as unpriced_turns,
        rated.unpriced_tokens,
        t.reported_cost_usd,
        rated.rated_cost_usd,
        rated.rated_cost_low_usd,
        rated.rated_cost_high_usd,
        t.usage_date,
        t.occurred_at
    from {{ ref('fct_rated_turns') }} as rated
    inner join changed using (tenant_id, usage_date)
    inner join {{ ref('fct_llm_turns') }} as t using (tenant_id, turn_id)
    {%- if is_judged %}
    inner join {{ ref('int_usage__turns_judged') }} as judged using (tenant_id, turn_id)
    {%- endif %}
),

tool_calls as (
    select
        tenant_id,
        session_id,
        agent_kind,
        agent_runtime,
        model,
        {%- if is_judged %}
        coalesce(tool_name, 'unknown') as tool_name,
        'none' as waste_kind,
        {%- endif %}
        0 as turns,
        0 as input_tokens,
        0 as cache_read_input_tokens,
        0 as cache_write_input_tokens,
        0 as output_tokens,
        1 as tool_calls,
        case when is_error then 1 else 0 end as tool_errors,
        0 as unreported_turns,
        0 as unreported_tokens,
        0 as unpriced_turns,
        0 as unpriced_tokens,
        cast(null as decimal(38, 20)) as reported_cost_usd,
        cast(null as decimal(38, 20)) as rated_cost_usd,
        cast(null as decimal(38, 20)) as rated_cost_low_usd,
        cast(null as decimal(38, 20)) as rated_cost_high_usd,
        usage_date,
        occurred_at
    from {{ ref('fct_tool_calls') }}
),

-- One under the other, never joined: a day may have calls and no turns, or turns and no calls.
measures as (
    select * from turns
    union all
    select * from tool_calls
)
{%- endmacro %}

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
    {{ usage_sums('sessions', without=['tool_errors', 'unreported_tokens']) }},
    sessions.usage_date,
    max(sessions.changed_seq) as _ingest_seq,
    max(sessions.changed_rating_seq) as _rating_seq
from sessions
group by sessions.tenant_id, {% if column %}sessions.{{ column }}, {% endif %}sessions.usage_date
{%- endmacro %}
