with budgets as (
    select * from {{ ref('stg_billing__budgets') }}
),

known as (
    select * from {{ ref('int_tenants__known_as_of') }}
),

daily as (
    select * from {{ ref('agg_usage_session_daily') }}
),

unpriced as (
    select
        tenant_id,
        user_id,
        colony_id,
        usage_date,
        sum(unreported_tokens) as unpriced_tokens
    from {{ ref('agg_usage_quarter_hourly') }}
    group by tenant_id, user_id, colony_id, usage_date
),

use_of_days as (
    select
        tenant_id, user_id, colony_id, usage_date,
        cast(input_tokens + output_tokens as decimal(38, 20)) as tokens,
        cast(turns as decimal(38, 20)) as turns,
        reported_cost_usd,
        null as rated_cost_usd,
        0 as unpriced_tokens,
        0 as unrated_tokens
    from daily
    union all
    select
        tenant_id, user_id, colony_id, usage_date,
        0 as tokens,
        0 as turns,
        null as reported_cost_usd,
        null as rated_cost_usd,
        unpriced_tokens,
        0 as unrated_tokens
    from unpriced
    union all
    select
        tenant_id, user_id, colony_id, usage_date,
        0 as tokens,
        0 as turns,
        null as reported_cost_usd,
        rated_cost_usd,
        0 as unpriced_tokens,
        unpriced_tokens as unrated_tokens
    from {{ ref('fct_rated_turns') }}
),

-- A day after the last arrival is a device's wrong clock: it is in no period that is known.
used_days as (
    select
        budgets.budget_id,
        used.usage_date,
        sum(
            case budgets.measure
                when 'tokens' then used.tokens
                when 'turns' then used.turns
                when 'rated_cost_usd' then coalesce(used.rated_cost_usd, 0)
                else coalesce(used.reported_cost_usd, 0)
            end
        ) as amount,
        -- What no price is known of: by the source for what it reports, by the book for what is rated.
        sum(
            case when budgets.measure = 'rated_cost_usd' then used.unrated_tokens else used.unpriced_tokens end
        ) as unpriced_tokens
    from budgets
    inner join known using (tenant_id)
    inner join use_of_days as used
        on budgets.tenant_id = used.tenant_id
        and (
            budgets.scope = 'tenant'
            or (budgets.scope = 'user' and budgets.scope_id = used.user_id)
            or (budgets.scope = 'colony' and budgets.scope_id = used.colony_id)
        )
        and used.usage_date <= known.known_as_of_date
    group by budgets.budget_id, used.usage_date
),

-- Every period with use while the budget is in force, and the present one.
period_days as (
    select
        budgets.budget_id,
        used_days.usage_date as day
    from budgets
    inner join used_days using (budget_id)
    where used_days.usage_date >= budgets.valid_from
        and (budgets.valid_to is null or used_days.usage_date < budgets.valid_to)
    union all
    select
        budgets.budget_id,
        known.known_as_of_date as day
    from budgets
    inner join known using (tenant_id)
    where known.known_as_of_date >= budgets.valid_from
        and (budgets.valid_to is null or known.known_as_of_date < budgets.valid_to)
),

periods as (
    select distinct
        budgets.*,
        known.known_as_of,
        known.known_as_of_date,
        cast(date_trunc(budgets.period, period_days.day) as date) as period_start_date,
        {{ next_period('budgets.period', 'period_days.day') }} as period_end_date
    from budgets
    inner join known using (tenant_id)
    inner join period_days using (budget_id)
),

actuals as (
    select
        periods.budget_id,
        periods.period_start_date,
        sum(used_days.amount) as used_amount,
        sum(used_days.amount) filter (where used_days.usage_date = periods.known_as_of_date) as used_today_amount,
        sum(used_days.unpriced_tokens) as unpriced_tokens
    from periods
    inner join used_days
        on periods.budget_id = used_days.budget_id
        and used_days.usage_date >= periods.period_start_date
        and used_days.usage_date < periods.period_end_date
    group by periods.budget_id, periods.period_start_date
),

-- The 28 days before today, from the first one with use: a day without use is a day.
past_days as (
    select
        firsts.budget_id,
        days.day
    from (
        select
            periods.budget_id,
            periods.known_as_of_date,
            greatest(min(used_days.usage_date), periods.known_as_of_date - {{ var('forecast_days') }}) as first_date
        from periods
        inner join used_days using (budget_id)
        group by periods.budget_id, periods.known_as_of_date
    ) as firsts
    cross join lateral (
        select {{ dates_between('firsts.first_date', 'firsts.known_as_of_date - 1') }} as day
    ) as days
),

-- Percentiles that are one of the days, not a mean of two: exact, and of a day that was.
typical_days as (
    select
        past_days.budget_id,
        count(*) as past_days,
        {{ quantile('coalesce(used_days.amount, 0)', '0.5') }} as burn_rate_amount,
        {{ quantile('coalesce(used_days.amount, 0)', '0.1') }} as burn_rate_low_amount,
        {{ quantile('coalesce(used_days.amount, 0)', '0.9') }} as burn_rate_high_amount
    from past_days
    left join used_days
        on past_days.budget_id = used_days.budget_id
        and past_days.day = used_days.usage_date
    group by past_days.budget_id
),

joined as (
    select
        periods.*,
        coalesce(actuals.used_amount, 0) as used_amount,
        coalesce(actuals.used_today_amount, 0) as used_today_amount,
        coalesce(actuals.unpriced_tokens, 0) as unpriced_tokens,
        periods.period_end_date > periods.known_as_of_date as is_current,
        {{ days_between('periods.known_as_of_date', 'periods.period_end_date') }} - 1 as days_left,
        coalesce(typical_days.past_days, 0) as past_days,
        typical_days.burn_rate_amount,
        typical_days.burn_rate_low_amount,
        typical_days.burn_rate_high_amount
    from periods
    left join actuals using (budget_id, period_start_date)
    left join typical_days using (budget_id)
),

forecasts as (
    select
        *,
        used_amount - used_today_amount
            + greatest(used_today_amount, burn_rate_amount) + days_left * burn_rate_amount as expected_amount,
        used_amount - used_today_amount
            + greatest(used_today_amount, burn_rate_low_amount) + days_left * burn_rate_low_amount as expected_low_amount,
        used_amount - used_today_amount
            + greatest(used_today_amount, burn_rate_high_amount) + days_left * burn_rate_high_amount
            as expected_high_amount
    from joined
),

-- The first of the days left on which typical days use up what remains.
exhaustion as (
    select
        forecasts.budget_id,
        forecasts.period_start_date,
        min(forecasts.known_as_of_date + cast(steps.step as integer)) as runs_out_date
    from forecasts
    cross join lateral (select {{ numbers_between(0, 31) }} as step) as steps
    where forecasts.is_current
        and steps.step <= forecasts.days_left
        and forecasts.used_amount - forecasts.used_today_amount
            + greatest(forecasts.used_today_amount, coalesce(forecasts.burn_rate_amount, 0))
            + steps.step * coalesce(forecasts.burn_rate_amount, 0) >= forecasts.limit_amount
    group by forecasts.budget_id, forecasts.period_start_date
)

select
    forecasts.budget_id,
    forecasts.tenant_id,
    forecasts.scope,
    forecasts.scope_id,
    forecasts.period,
    forecasts.measure,
    case
        when forecasts.used_amount >= forecasts.limit_amount then 'exceeded'
        when forecasts.unpriced_tokens > 0 and forecasts.unpriced_tokens >= forecasts.unpriced_limit_tokens
            then 'exceeded'
        when forecasts.used_amount >= forecasts.limit_amount * forecasts.warn_at then 'warning'
        when forecasts.measure in ('reported_cost_usd', 'rated_cost_usd') and forecasts.unpriced_tokens > 0 then 'warning'
        else 'within'
    end as budget_state,
    case when forecasts.is_current then 'median of past days, band of their tenth and ninetieth percentile' end
        as forecast_method,
    cast(forecasts.unpriced_tokens as bigint) as unpriced_tokens,
    forecasts.unpriced_limit_tokens,
    case when forecasts.is_current then forecasts.past_days end as past_days,
    forecasts.limit_amount,
    cast(forecasts.warn_at as decimal(38, 20)) as warn_at,
    cast(forecasts.used_amount as decimal(38, 20)) as used_amount,
    cast(forecasts.limit_amount - forecasts.used_amount as decimal(38, 20)) as remaining_amount,
    cast(case when forecasts.is_current then forecasts.burn_rate_amount end as decimal(38, 20)) as burn_rate_amount,
    cast(case when forecasts.is_current then forecasts.expected_amount end as decimal(38, 20)) as forecast_amount,
    cast(case when forecasts.is_current then forecasts.expected_low_amount end as decimal(38, 20)) as forecast_low_amount,
    cast(case when forecasts.is_current then forecasts.expected_high_amount end as decimal(38, 20))
        as forecast_high_amount,
    forecasts.is_current,
    forecasts.period_start_date,
    forecasts.period_end_date,
    exhaustion.runs_out_date,
    forecasts.known_as_of
from forecasts
left join exhaustion using (budget_id, period_start_date)
