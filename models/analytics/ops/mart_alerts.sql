with turns as (
    select
        t.turn_id,
        t.tenant_id,
        t.session_id,
        t.model,
        t.turn_source,
        t.input_tokens + t.output_tokens as tokens,
        t.reported_cost_usd,
        rated.unpriced_tokens,
        t.usage_date,
        t.occurred_at,
        judged.turn_number,
        judged.idle_turns,
        judged.received_at
    from {{ ref('fct_llm_turns') }} as t
    left join {{ ref('fct_rated_turns') }} as rated using (tenant_id, turn_id)
    inner join {{ ref('int_usage__turns_judged') }} as judged using (tenant_id, turn_id)
),

known as (
    select * from {{ ref('int_tenants__known_as_of') }}
),

rated as (
    select
        tenant_id,
        session_id,
        usage_date,
        sum(rated_cost_usd) as rated_cost_usd
    from {{ ref('fct_rated_turns') }}
    group by tenant_id, session_id, usage_date
),

session_days as (
    select
        daily.tenant_id,
        daily.session_id,
        daily.user_id,
        daily.colony_id,
        daily.usage_date,
        sum(daily.turns) as turns,
        sum(daily.input_tokens + daily.output_tokens) as tokens,
        sum(daily.reported_cost_usd) as reported_cost_usd,
        max(rated.rated_cost_usd) as rated_cost_usd,
        max(arrivals.last_turn_at) as last_turn_at,
        max(arrivals.received_at) as received_at
    from {{ ref('agg_usage_session_daily') }} as daily
    inner join {{ ref('int_usage__session_day_arrivals') }} as arrivals using (tenant_id, session_id, usage_date)
    left join rated using (tenant_id, session_id, usage_date)
    group by daily.tenant_id, daily.session_id, daily.user_id, daily.colony_id, daily.usage_date
),

runs as (
    select * from {{ ref('int_alerts__runs_ended') }}
),

-- Success below the limit in five minutes (by the end of the runs).
low_success as (
    select
        'low_success' as alert_kind,
        tenant_id,
        cast(null as varchar) as subject_id,
        cast(count(*) filter (where not is_failed and not is_stopped) as decimal(38, 20)) as found_value,
        cast(count(*) as decimal(38, 20)) as expected_value,
        cast(null as decimal(38, 20)) as reported_cost_usd,
        max(ended_at) as occurred_at,
        max(received_at) as known_at
    from runs
    group by tenant_id, {{ bucket_of('ended_at', 5) }}
    having count(*) >= {{ var('low_success_min_runs') }}
        and count(*) filter (where not is_failed and not is_stopped) * 1000
        < count(*) * {{ var('low_success_per_mille') }}
),

run_days as (
    select
        *,
        {{ utc_date('ended_at') }} as ended_date
    from runs
    where duration_seconds is not null
),

run_day_totals as (
    select
        tenant_id,
        ended_date,
        count(*) as runs,
        sum(duration_seconds) as duration_seconds,
        max(ended_at) as ended_at,
        max(received_at) as received_at
    from run_days
    group by tenant_id, ended_date
),

run_baselines as (
    select
        totals.tenant_id,
        totals.ended_date,
        {{ quantile('past.duration_seconds', '0.5') }} as median_seconds
    from run_day_totals as totals
    inner join run_days as past
        on totals.tenant_id = past.tenant_id
        and past.ended_date < totals.ended_date
        and past.ended_date >= totals.ended_date - {{ var('forecast_days') }}
    group by totals.tenant_id, totals.ended_date
    having count(*) >= {{ var('slow_runs_min_runs') }}
),

-- The mean of a day against the median before: sum > factor x median x runs says the same without a division.
slow_runs as (
    select
        'slow_runs' as alert_kind,
        totals.tenant_id,
        cast(null as varchar) as subject_id,
        cast(totals.duration_seconds as decimal(38, 20)) as found_value,
        cast(baselines.median_seconds * totals.runs * {{ var('slow_runs_factor') }} as decimal(38, 20))
            as expected_value,
        cast(null as decimal(38, 20)) as reported_cost_usd,
        totals.ended_at as occurred_at,
        totals.received_at as known_at
    from run_day_totals as totals
    inner join run_baselines as baselines using (tenant_id, ended_date)
    where totals.duration_seconds > baselines.median_seconds * totals.runs * {{ var('slow_runs_factor') }}
),

steps_of_runs as (
    select tenant_id, started_at as happened_at, 1 as change, started_at, received_at
    from runs
    where started_at is not null
    union all
    select tenant_id, ended_at as happened_at, -1 as change, started_at, received_at
    from runs
    where started_at is not null
),

-- An end stands before a start of the same instant: they are not at work together.
active as (
    select
        *,
        sum(change) over (
            partition by tenant_id
            order by happened_at, change
            rows between unbounded preceding and current row
        ) as active_agents
    from steps_of_runs
),

too_many_agents as (
    select
        'too_many_agents' as alert_kind,
        tenant_id,
        cast(null as varchar) as subject_id,
        cast(max(active_agents) as decimal(38, 20)) as found_value,
        cast({{ var('max_active_agents') }} as decimal(38, 20)) as expected_value,
        cast(null as decimal(38, 20)) as reported_cost_usd,
        min(happened_at) as occurred_at,
        max(received_at) as known_at
    from active
    where active_agents > {{ var('max_active_agents') }}
    group by tenant_id, {{ utc_date('happened_at') }}
),

-- Turns of one row of turns share the difference of their numbers.
stuck_loops as (
    select
        'stuck_loop' as alert_kind,
        tenant_id,
        session_id as subject_id,
        cast(max(idle_turns) as decimal(38, 20)) as found_value,
        cast({{ var('stuck_loop_turns') }} as decimal(38, 20)) as expected_value,
        sum(reported_cost_usd) as reported_cost_usd,
        -- The turn that makes it a loop may be one that only the steps tell: then the next one is the first to tell.
        min(occurred_at) filter (where idle_turns >= {{ var('stuck_loop_turns') }}) as occurred_at,
        coalesce(
            max(received_at) filter (where idle_turns <= {{ var('stuck_loop_turns') }}), min(received_at)
        ) as known_at
    from turns
    where idle_turns > 0
        and turn_source = 'event'
    group by tenant_id, session_id, turn_number - idle_turns
    having max(idle_turns) >= {{ var('stuck_loop_turns') }}
),

wakes as (
    select tenant_id, session_id, occurred_at, _received_at
    from {{ ref('stg_wire__triggers') }}
    where kind = 'fired'
    union all
    select tenant_id, session_id, occurred_at, _received_at
    from {{ ref('stg_wire__status_events') }}
    where kind = 'input_received'
),

-- The first turn at or after each wake, by one pass in the order of time.
wakes_and_turns as (
    select tenant_id, session_id, true as is_wake, occurred_at, _received_at
    from wakes
    union all
    select tenant_id, session_id, false as is_wake, occurred_at, received_at as _received_at
    from turns
),

answered as (
    select
        *,
        min(case when not is_wake then occurred_at end) over (
            partition by tenant_id, session_id
            order by occurred_at
            range between current row and unbounded following
        ) as next_turn_at
    from wakes_and_turns
),

-- Only once something arrived after the time was up: before that the turn may be on its way.
lost_wakes as (
    select
        'lost_wake' as alert_kind,
        answered.tenant_id,
        answered.session_id as subject_id,
        cast(0 as decimal(38, 20)) as found_value,
        cast(1 as decimal(38, 20)) as expected_value,
        cast(null as decimal(38, 20)) as reported_cost_usd,
        answered.occurred_at,
        max(answered._received_at) as known_at
    from answered
    inner join known using (tenant_id)
    where answered.is_wake
        and {{ seconds_after('answered.occurred_at', var('lost_wake_seconds')) }} < known.known_as_of
        and (
            answered.next_turn_at is null
            or answered.next_turn_at > {{ seconds_after('answered.occurred_at', var('lost_wake_seconds')) }}
        )
    group by answered.tenant_id, answered.session_id, answered.occurred_at
),

tenant_days as (
    select
        tenant_id,
        usage_date,
        sum(reported_cost_usd) as reported_cost_usd,
        max(last_turn_at) as last_turn_at,
        max(received_at) as received_at
    from session_days
    group by tenant_id, usage_date
),

tenant_baselines as (
    select
        today.tenant_id,
        today.usage_date,
        {{ quantile('past.reported_cost_usd', '0.5') }} as median_cost_usd
    from tenant_days as today
    inner join tenant_days as past
        on today.tenant_id = past.tenant_id
        and past.usage_date < today.usage_date
        and past.usage_date >= today.usage_date - {{ var('forecast_days') }}
    where past.reported_cost_usd is not null
    group by today.tenant_id, today.usage_date
    having count(*) >= {{ var('spend_spike_min_days') }}
),

spend_spikes as (
    select
        'spend_spike' as alert_kind,
        today.tenant_id,
        cast(null as varchar) as subject_id,
        today.reported_cost_usd as found_value,
        cast(baselines.median_cost_usd * {{ var('spend_spike_factor') }} as decimal(38, 20)) as expected_value,
        today.reported_cost_usd,
        today.last_turn_at as occurred_at,
        today.received_at as known_at
    from tenant_days as today
    inner join tenant_baselines as baselines using (tenant_id, usage_date)
    where today.reported_cost_usd > baselines.median_cost_usd * {{ var('spend_spike_factor') }}
),

candidates as (
    select *
    from session_days
    where tokens >= {{ var('runaway_min_tokens') }}
),

-- The median of a day is the tenant's: asked once for each day with candidates, not once for each candidate.
candidate_days as (
    select distinct
        tenant_id,
        usage_date
    from candidates
),

runaway_baselines as (
    select
        candidate_days.tenant_id,
        candidate_days.usage_date,
        {{ quantile('past.tokens', '0.5') }} as median_tokens
    from candidate_days
    inner join session_days as past
        on candidate_days.tenant_id = past.tenant_id
        and past.usage_date < candidate_days.usage_date
        and past.usage_date >= candidate_days.usage_date - {{ var('forecast_days') }}
    group by candidate_days.tenant_id, candidate_days.usage_date
    having count(*) >= {{ var('runaway_min_session_days') }}
),

runaway_agents as (
    select
        'runaway_agent' as alert_kind,
        candidates.tenant_id,
        candidates.session_id as subject_id,
        cast(candidates.tokens as decimal(38, 20)) as found_value,
        cast(baselines.median_tokens * {{ var('runaway_factor') }} as decimal(38, 20)) as expected_value,
        candidates.reported_cost_usd,
        candidates.last_turn_at as occurred_at,
        candidates.received_at as known_at
    from candidates
    inner join runaway_baselines as baselines using (tenant_id, usage_date)
    where candidates.tokens > baselines.median_tokens * {{ var('runaway_factor') }}
),

unpriced_models as (
    select
        'new_unpriced_model' as alert_kind,
        tenant_id,
        model as subject_id,
        cast(sum(tokens) as decimal(38, 20)) as found_value,
        cast(0 as decimal(38, 20)) as expected_value,
        cast(null as decimal(38, 20)) as reported_cost_usd,
        min(occurred_at) as occurred_at,
        min(received_at) as known_at
    from turns
    where unpriced_tokens > 0
    group by tenant_id, model
),

budget_days as (
    select
        budget.budget_id,
        budget.tenant_id,
        budget.measure,
        budget.limit_amount,
        budget.warn_at,
        budget.period_start_date,
        days.usage_date,
        sum(
            case budget.measure
                when 'tokens' then cast(days.tokens as decimal(38, 20))
                when 'turns' then cast(days.turns as decimal(38, 20))
                when 'rated_cost_usd' then coalesce(days.rated_cost_usd, 0)
                else coalesce(days.reported_cost_usd, 0)
            end
        ) as amount,
        max(days.last_turn_at) as last_turn_at,
        max(days.received_at) as received_at
    from {{ ref('mart_budget') }} as budget
    inner join session_days as days
        on budget.tenant_id = days.tenant_id
        and days.usage_date >= budget.period_start_date
        and days.usage_date < budget.period_end_date
        and (
            budget.scope = 'tenant'
            or (budget.scope = 'user' and budget.scope_id = days.user_id)
            or (budget.scope = 'colony' and budget.scope_id = days.colony_id)
        )
    group by
        budget.budget_id, budget.tenant_id, budget.measure, budget.limit_amount, budget.warn_at,
        budget.period_start_date, days.usage_date
),

budget_runs as (
    select
        *,
        sum(amount) over (
            partition by budget_id, period_start_date
            order by usage_date
            rows between unbounded preceding and current row
        ) as used_amount
    from budget_days
),

budget_steps as (
    select *, 'budget_warning' as alert_kind, limit_amount * cast(warn_at as decimal(9, 4)) as threshold
    from budget_runs
    union all
    select *, 'budget_exceeded' as alert_kind, limit_amount as threshold
    from budget_runs
),

budgets as (
    select
        alert_kind,
        tenant_id,
        budget_id as subject_id,
        cast(used_amount as decimal(38, 20)) as found_value,
        cast(threshold as decimal(38, 20)) as expected_value,
        case when measure = 'reported_cost_usd' then cast(used_amount as decimal(38, 20)) end as reported_cost_usd,
        last_turn_at as occurred_at,
        received_at as known_at
    from budget_steps
    where used_amount >= threshold
        and used_amount - amount < threshold
),

-- Of refused batches the ledger speaks, by tenant and reason; of runs, checks and assets the pipeline's own notes.
quarantine as (
    select
        'quarantine' as alert_kind,
        tenant_id,
        reason as subject_id,
        cast(count(*) as decimal(38, 20)) as found_value,
        cast(0 as decimal(38, 20)) as expected_value,
        cast(null as decimal(38, 20)) as reported_cost_usd,
        max(received_at) as occurred_at,
        max(received_at) as known_at
    from {{ ref('stg_wire__batches') }}
    where status = 'quarantined'
    group by tenant_id, reason
),

operation as (
    select
        alert_kind,
        cast(null as varchar) as tenant_id,
        subject_id,
        cast(1 as decimal(38, 20)) as found_value,
        cast(0 as decimal(38, 20)) as expected_value,
        cast(null as decimal(38, 20)) as reported_cost_usd,
        occurred_at,
        occurred_at as known_at
    from {{ ref('stg_operation__alerts') }}
),

alerts as (
    {%- for kind in [
        'low_success', 'slow_runs', 'too_many_agents', 'stuck_loops', 'lost_wakes', 'spend_spikes', 'runaway_agents',
        'unpriced_models', 'budgets', 'quarantine', 'operation',
    ] %}
    select * from {{ kind }}
    {%- if not loop.last %}
    union all
    {%- endif %}
    {%- endfor %}
)

select
    {{ id_of(['alerts.alert_kind', 'alerts.tenant_id', 'alerts.subject_id', to_micros('alerts.occurred_at')]) }} as alert_id,
    alerts.tenant_id,
    alerts.subject_id,
    alerts.alert_kind,
    kinds.severity,
    greatest(0, {{ to_micros('alerts.known_at') }} // 1000000 - {{ to_micros('alerts.occurred_at') }} // 1000000)
        as detected_late_by_seconds,
    alerts.found_value,
    alerts.expected_value,
    alerts.reported_cost_usd,
    {{ utc_date('alerts.occurred_at') }} as alert_date,
    alerts.occurred_at,
    alerts.known_at,
    kinds.what_to_do,
    kinds.docs_page
from alerts
left join {{ ref('alert_kinds') }} as kinds using (alert_kind)
