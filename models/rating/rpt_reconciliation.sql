with recursive lines as (
    select
        *,
        {{ token_type('component') }} as token_type,
        {{ undated_model('price_model') }} as plain_model
    from {{ ref('fct_rated_lines') }}
    where provider_name is not null
        and pricing_currency = 'USD'
),

reports as (
    select
        *,
        {{ undated_model('model') }} as plain_model
    from {{ ref('fct_provider_costs') }}
    where is_current
        and (currency = 'USD' or report_kind = 'usage')
),

-- At the provider's price as we know it, before any agreement with our own customer.
ours as (
    select
        usage_date,
        provider_name,
        plain_model as model,
        token_type,
        sum(quantity) as quantity,
        sum({{ line_amount('quantity', 'pricing_unit_price') }}) as cost,
        bool_or(pricing_unit_price is null) as is_unpriced,
        {{ latest('pricing_unit_price', '(quantity, pricing_unit_price)') }} as unit_price
    from lines
    group by usage_date, provider_name, plain_model, token_type
    having sum(quantity) > 0
),

theirs as (
    select
        usage_date,
        provider_name,
        plain_model as model,
        token_type,
        sum(quantity) filter (where report_kind = 'usage') as usage_quantity,
        sum(quantity) filter (where report_kind = 'cost') as cost_quantity,
        sum(amount) filter (where report_kind = 'cost') as cost
    from reports
    where model is not null
        and token_type is not null
    group by usage_date, provider_name, plain_model, token_type
),

joined as (
    select
        coalesce(ours.usage_date, theirs.usage_date) as usage_date,
        coalesce(ours.provider_name, theirs.provider_name) as provider_name,
        coalesce(ours.model, theirs.model) as model,
        coalesce(ours.token_type, theirs.token_type) as token_type,
        ours.quantity is not null as is_ours,
        theirs.model is not null as is_theirs,
        coalesce(ours.is_unpriced, false) as is_unpriced,
        coalesce(ours.quantity, 0) as our_quantity,
        -- A report of costs alone says nothing of tokens: then only the amounts can be compared.
        coalesce(theirs.usage_quantity, theirs.cost_quantity, case when theirs.model is null then 0 else ours.quantity end, 0)
            as their_quantity,
        coalesce(ours.cost, cast(0 as decimal(38, 15))) as our_cost,
        case when theirs.model is null then cast(0 as decimal(38, 15)) else theirs.cost end as their_cost,
        ours.unit_price
    from ours
    full outer join theirs
        on ours.usage_date = theirs.usage_date
        and ours.provider_name = theirs.provider_name
        and ours.model = theirs.model
        and ours.token_type = theirs.token_type
),

-- The price of a token of this bucket: the one most of its tokens had, else the one its model has on other days.
bucketed as (
    select
        *,
        coalesce(
            unit_price,
            last_value(unit_price ignore nulls) over (
                partition by provider_name, model, token_type order by usage_date
                rows between unbounded preceding and current row
            ),
            first_value(unit_price ignore nulls) over (
                partition by provider_name, model, token_type order by usage_date
                rows between current row and unbounded following
            )
        ) as known_unit_price,
        their_quantity - our_quantity as gap
    from joined
),

-- Tokens around midnight are on one day here and on its neighbour there: gaps of opposite sign on two days in a row
-- cancel. Each token is moved once: what is left of a gap goes on to the next day.
moved as (
    select
        provider_name,
        model,
        token_type,
        usage_date,
        cast(0 as hugeint) as taken_from_before,
        cast(gap as hugeint) as remaining
    from bucketed as first_days
    where not exists (
        select 1 from bucketed as earlier
        where earlier.provider_name = first_days.provider_name
            and earlier.model = first_days.model
            and earlier.token_type = first_days.token_type
            and earlier.usage_date = first_days.usage_date - 1
    )
    union all
    select
        bucketed.provider_name,
        bucketed.model,
        bucketed.token_type,
        bucketed.usage_date,
        cast(
            case
                when sign(moved.remaining) * sign(bucketed.gap) < 0
                    then sign(bucketed.gap) * least(abs(moved.remaining), abs(bucketed.gap))
                else 0
            end as hugeint
        ) as taken_from_before,
        cast(
            bucketed.gap - case
                when sign(moved.remaining) * sign(bucketed.gap) < 0
                    then sign(bucketed.gap) * least(abs(moved.remaining), abs(bucketed.gap))
                else 0
            end as hugeint
        ) as remaining
    from moved
    inner join bucketed
        on moved.provider_name = bucketed.provider_name
        and moved.model = bucketed.model
        and moved.token_type = bucketed.token_type
        and moved.usage_date + 1 = bucketed.usage_date
),

timed as (
    select
        bucketed.*,
        cast(coalesce(moved.taken_from_before, 0) - coalesce(following.taken_from_before, 0) as bigint) as timing_tokens
    from bucketed
    left join moved using (provider_name, model, token_type, usage_date)
    left join moved as following
        on bucketed.provider_name = following.provider_name
        and bucketed.model = following.model
        and bucketed.token_type = following.token_type
        and bucketed.usage_date + 1 = following.usage_date
),

-- Tokens first, at our price; what the amounts differ by beyond that is the price, or what was rounded away.
split as (
    select
        *,
        their_cost - our_cost as variance_cost,
        {{ line_amount('timing_tokens', 'known_unit_price') }} as timing_cost,
        {{ line_amount('(gap - timing_tokens)', 'known_unit_price') }} as quantity_cost
    from timed
),

parted as (
    select
        *,
        variance_cost - coalesce(timing_cost, 0) - coalesce(quantity_cost, 0) as rest_cost
    from split
)

select
    provider_name,
    model,
    token_type,
    case
        when not is_theirs then 'missing_theirs'
        when not is_ours then 'missing_ours'
        when their_cost is null or is_unpriced then 'price_gap'
        when gap = 0 and variance_cost = 0 then 'match'
        when gap = 0 and abs(variance_cost) <= cast('{{ var("reconciliation_tolerance") }}' as decimal(18, 9))
            then 'within_tolerance'
        when abs(coalesce(timing_cost, 0)) + abs(coalesce(quantity_cost, 0)) >= abs(rest_cost) then 'quantity_gap'
        else 'price_gap'
    end as variance_class,
    case
        when not is_theirs then 'no_report'
        when not is_ours then 'not_collected'
        when their_cost is null or is_unpriced then 'unpriced'
        when gap = 0 and variance_cost = 0 then 'nothing'
        when abs(coalesce(timing_cost, 0)) + abs(coalesce(quantity_cost, 0)) >= abs(rest_cost)
            then case when abs(timing_cost) >= abs(quantity_cost) then 'timing' else 'quantity' end
        when abs(rest_cost) <= cast('{{ var("reconciliation_tolerance") }}' as decimal(18, 9)) then 'rounding'
        else 'price'
    end as explained_by,
    cast(our_quantity as bigint) as our_quantity,
    cast(their_quantity as bigint) as their_quantity,
    timing_tokens,
    cast(our_cost as decimal(38, 15)) as our_cost,
    cast(their_cost as decimal(38, 15)) as their_cost,
    cast(variance_cost as decimal(38, 15)) as variance_cost,
    cast(coalesce(timing_cost, 0) as decimal(38, 15)) as timing_cost,
    cast(coalesce(quantity_cost, 0) as decimal(38, 15)) as quantity_cost,
    cast(
        case
            when abs(rest_cost) > cast('{{ var("reconciliation_tolerance") }}' as decimal(18, 9)) then rest_cost
            else 0
        end as decimal(38, 15)
    ) as price_cost,
    cast(
        case
            when abs(rest_cost) <= cast('{{ var("reconciliation_tolerance") }}' as decimal(18, 9)) then rest_cost
            else 0
        end as decimal(38, 15)
    ) as rounding_cost,
    usage_date
from parted
