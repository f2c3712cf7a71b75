with lines as (
    select * from {{ ref('fct_rated_lines') }}
),

-- What a seat and a colony's day cost is in the price book like any other price: offer apiary/platform.
unit_prices as (
    select * from {{ ref('int_billing__rates_in_force') }}
    where provider_name = 'apiary'
        and model = 'platform'
        and status = 'approved'
        and service_tier = 'standard'
        and not is_batch
),

counted as (
    select
        tenant_id,
        billing_account_id,
        currency,
        {{ month_of('usage_date') }} as billing_month,
        count(distinct user_id) filter (where user_id <> 'UNATTRIBUTED') as users,
        count(distinct (colony_id, usage_date)) filter (where colony_id is not null) as colony_days,
        sum(quantity) as tokens,
        coalesce(sum(quantity) filter (where contracted_cost is null), 0) as unpriced_tokens,
        sum(contracted_cost) as per_token_amount,
        -- Of the same lines as the amount between them.
        sum(low_cost) filter (where contracted_cost is not null) as low_per_token_amount,
        sum(high_cost) filter (where contracted_cost is not null) as high_per_token_amount,
        sum(low_cost) filter (where contracted_cost is null) as low_unpriced_amount,
        sum(high_cost) filter (where contracted_cost is null) as high_unpriced_amount
    from lines
    group by tenant_id, billing_account_id, currency, {{ month_of('usage_date') }}
),

priced as (
    select
        counted.*,
        seats.unit_price as seat_unit_price,
        colonies.unit_price as colony_day_unit_price
    from counted
    left join unit_prices as seats
        on seats.component = 'seat_month'
        and counted.currency = seats.currency
        and {{ utc_midnight('counted.billing_month') }} >= seats.in_force_from
        and {{ utc_midnight('counted.billing_month') }} < coalesce(seats.in_force_to, timestamptz '9999-12-31 00:00:00+00')
    left join unit_prices as colonies
        on colonies.component = 'colony_day'
        and counted.currency = colonies.currency
        and {{ utc_midnight('counted.billing_month') }} >= colonies.in_force_from
        and {{ utc_midnight('counted.billing_month') }} < coalesce(colonies.in_force_to, timestamptz '9999-12-31 00:00:00+00')
)

select
    tenant_id,
    billing_account_id,
    currency,
    cast(users as bigint) as users,
    cast(colony_days as bigint) as colony_days,
    cast(tokens as bigint) as tokens,
    cast(unpriced_tokens as bigint) as unpriced_tokens,
    seat_unit_price,
    colony_day_unit_price,
    cast(cast(users as decimal(20, 6)) * seat_unit_price as decimal(38, 15)) as per_seat_amount,
    cast(cast(colony_days as decimal(20, 6)) * colony_day_unit_price as decimal(38, 15)) as per_colony_day_amount,
    cast(per_token_amount as decimal(38, 15)) as per_token_amount,
    cast(low_per_token_amount as decimal(38, 15)) as low_per_token_amount,
    cast(high_per_token_amount as decimal(38, 15)) as high_per_token_amount,
    cast(low_unpriced_amount as decimal(38, 15)) as low_unpriced_amount,
    cast(high_unpriced_amount as decimal(38, 15)) as high_unpriced_amount,
    billing_month
from priced
