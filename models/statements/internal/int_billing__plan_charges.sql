with items as (
    select * from {{ ref('stg_billing__plan_items') }}
),

tiers as (
    select
        plan_item_id,
        tier_from,
        unit_price,
        lead(tier_from) over (partition by plan_item_id order by tier_from) as tier_to
    from {{ ref('stg_billing__plan_tiers') }}
),

usage as (
    select * from {{ ref('int_billing__account_months') }}
),

seats as (
    select * from {{ ref('stg_billing__seats') }}
),

-- A plan runs from its first month to the last one with usage of anybody, or that is next to be closed: the clock of the
-- machine has no say.
last_month as (
    select max(billing_month) as billing_month
    from (
        select billing_month from usage
        union all
        select billing_period as billing_month from {{ ref('stg_billing__periods') }}
    ) as known
),

months as (
    select distinct
        items.plan_item_id,
        cast(month as date) as billing_month
    from items
    cross join last_month
    cross join unnest(
        generate_series(
            cast({{ month_of('items.valid_from') }} as timestamp),
            cast(last_month.billing_month as timestamp),
            interval 1 month
        )
    ) as series (month)
    -- An item that ends on its first day was taken back.
    where items.valid_to is null or (cast(month as date) < items.valid_to and items.valid_from < items.valid_to)
),

-- The days of a month that a seat was held in, counted from 0.
held as (
    select
        items.plan_item_id,
        months.billing_month,
        seats.seat_id,
        seats.user_id,
        {{ days_between(
            'months.billing_month', 'greatest(seats.valid_from, items.valid_from, months.billing_month)'
        ) }} as first_day,
        {{ days_between(
            'months.billing_month',
            'least(
                coalesce(seats.valid_to, ' ~ next_month('months.billing_month') ~ '),
                coalesce(items.valid_to, ' ~ next_month('months.billing_month') ~ '),
                ' ~ next_month('months.billing_month') ~ '
            )'
        ) }} as end_day,
        {{ days_between('months.billing_month', next_month('months.billing_month')) }} as days
    from months
    inner join items
        on months.plan_item_id = items.plan_item_id
    inner join seats using (billing_account_id)
    where items.item = 'seat'
),

units as (
    select
        items.*,
        months.billing_month,
        case items.item
            when 'tokens' then coalesce(usage.tokens, 0)
            when 'colony_day' then coalesce(usage.colony_days, 0)
            when 'seat' then (
                select count(distinct held.seat_id)
                from held
                where held.plan_item_id = items.plan_item_id
                    and held.billing_month = months.billing_month
                    and held.first_day < held.end_day
            )
            else 0
        end as units,
        coalesce(usage.billed_cost, 0) as billed_cost
    from months
    inner join items
        on months.plan_item_id = items.plan_item_id
    left join usage
        on items.billing_account_id = usage.billing_account_id
        and months.billing_month = usage.billing_month
),

billable as (
    select
        *,
        greatest(units - included_units, 0) as billable_units
    from units
),

-- Unit number n, from 0, belongs to the tier that begins at or before n.
tiered as (
    select
        billable.plan_item_id,
        billable.billing_month,
        sum(
            case
                when billable.item = 'tokens' then {{ line_amount(
                    'least(billable.billable_units, coalesce(tiers.tier_to, billable.billable_units)) - tiers.tier_from',
                    'tiers.unit_price'
                ) }}
                else cast(
                    least(billable.billable_units, coalesce(tiers.tier_to, billable.billable_units)) - tiers.tier_from
                    as decimal(20, 6)
                ) * tiers.unit_price
            end
        ) as graduated_amount,
        max_by(tiers.unit_price, tiers.tier_from) as volume_unit_price
    from billable
    inner join tiers
        on billable.plan_item_id = tiers.plan_item_id
        and tiers.tier_from < billable.billable_units
    group by billable.plan_item_id, billable.billing_month
),

-- A seat that begins or ends within the month pays its days; parts of one month add up to the whole price.
seat_parts as (
    select
        held.plan_item_id,
        held.billing_month,
        held.seat_id,
        held.user_id,
        held.first_day,
        held.end_day - held.first_day as seat_days,
        {{ prorated('items.unit_price', 'held.first_day', 'held.end_day', 'held.days') }} as amount
    from held
    inner join items using (plan_item_id)
    where items.pricing = 'per_unit'
        and held.first_day < held.end_day
),

amounts as (
    select
        billable.*,
        case
            when billable.pricing = 'none' then 0
            when billable.item = 'seat' and billable.pricing = 'per_unit' then coalesce((
                select sum(seat_parts.amount)
                from seat_parts
                where seat_parts.plan_item_id = billable.plan_item_id
                    and seat_parts.billing_month = billable.billing_month
            ), 0)
            when billable.pricing = 'package'
                then cast({{ packages('billable.billable_units', 'billable.package_size') }} as decimal(20, 6))
                    * billable.unit_price
            when billable.pricing = 'graduated' then coalesce(tiered.graduated_amount, 0)
            when billable.item = 'tokens'
                then {{ line_amount(
                    'billable.billable_units',
                    "case when billable.pricing = 'volume' then coalesce(tiered.volume_unit_price, 0)"
                    ~ " else billable.unit_price end"
                ) }}
            else cast(billable.billable_units as decimal(20, 6))
                * case
                    when billable.pricing = 'volume' then coalesce(tiered.volume_unit_price, 0)
                    else billable.unit_price
                end
        end as amount
    from billable
    left join tiered using (plan_item_id, billing_month)
),

charges as (
    select
        plan_item_id,
        billing_account_id,
        null as user_id,
        '' as seat_part,
        'plan' as charge_kind,
        item,
        units as quantity,
        amount,
        billing_month
    from amounts
    where pricing <> 'none'
        and not (item = 'seat' and pricing = 'per_unit')
    union all
    select
        seat_parts.plan_item_id,
        items.billing_account_id,
        seat_parts.user_id,
        concat_ws('|', seat_parts.seat_id, seat_parts.first_day) as seat_part,
        'plan' as charge_kind,
        'seat' as item,
        seat_parts.seat_days as quantity,
        seat_parts.amount,
        seat_parts.billing_month
    from seat_parts
    inner join items using (plan_item_id)
    union all
    -- What was promised and not used.
    select
        plan_item_id,
        billing_account_id,
        null as user_id,
        '' as seat_part,
        'true_up' as charge_kind,
        item,
        0 as quantity,
        commit_amount - case when item = 'rated_cost' then billed_cost else amount end as amount,
        billing_month
    from amounts
    where commit_amount > case when item = 'rated_cost' then billed_cost else amount end
)

select
    {{ id_of(['plan_item_id', 'charge_kind', 'seat_part', 'billing_month']) }} as charge_id,
    plan_item_id,
    billing_account_id,
    user_id,
    charge_kind,
    item,
    cast(quantity as bigint) as quantity,
    cast(amount as decimal(38, 15)) as amount,
    billing_month
from charges
