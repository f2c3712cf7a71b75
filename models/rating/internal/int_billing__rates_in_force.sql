with prices as (
    select * from {{ ref('stg_billing__price_book') }}
),

decisions as (
    select * from {{ ref('stg_billing__price_decisions') }}
),

-- The last word on a sheet counts: an approval may be taken back.
last_decisions as (
    select
        sheet_id,
        {{ latest('decision', 'decided_at') }} as decision,
        max(decided_at) as decided_at
    from decisions
    group by sheet_id
),

-- A sheet is all prices of one offer from an instant on: a tier or an hour that it does not name has ended.
sheets as (
    select
        prices.sheet_id,
        prices.provider_name,
        prices.model,
        prices.service_tier,
        prices.is_batch,
        prices.valid_from,
        prices.valid_to,
        coalesce(last_decisions.decision, 'propose') as decision,
        coalesce(last_decisions.decided_at, max(prices.recorded_at)) as decided_at
    from prices
    left join last_decisions using (sheet_id)
    group by
        prices.sheet_id, prices.provider_name, prices.model, prices.service_tier, prices.is_batch, prices.valid_from,
        prices.valid_to, last_decisions.decision, last_decisions.decided_at
),

approved as (
    select * from sheets
    where decision = 'approve'
),

edges as (
    select provider_name, model, service_tier, is_batch, valid_from as edge
    from approved
    union
    select provider_name, model, service_tier, is_batch, valid_to as edge
    from approved
    where valid_to is not null
),

spans as (
    select
        *,
        lead(edge) over (partition by provider_name, model, service_tier, is_batch order by edge) as next_edge
    from edges
),

-- Where sheets overlap, the one approved last was meant to replace the others.
winners as (
    select
        spans.edge as in_force_from,
        spans.next_edge as in_force_to,
        approved.sheet_id,
        approved.decided_at,
        row_number() over (
            partition by spans.provider_name, spans.model, spans.service_tier, spans.is_batch, spans.edge
            order by approved.decided_at desc, approved.sheet_id desc
        ) as place
    from spans
    inner join approved
        on spans.provider_name = approved.provider_name
        and spans.model = approved.model
        and spans.service_tier = approved.service_tier
        and spans.is_batch = approved.is_batch
        and spans.edge >= approved.valid_from
        and (approved.valid_to is null or spans.edge < approved.valid_to)
),

in_force as (
    select 'approved' as status, sheet_id, decided_at, in_force_from, in_force_to
    from winners
    where place = 1
    union all
    select 'proposed' as status, sheet_id, decided_at, valid_from as in_force_from, valid_to as in_force_to
    from sheets
    where decision = 'propose'
),

-- What a line's component may cost: the log does not tell for how long a cache was written.
components as (
    select
        *,
        component as line_component,
        0 as rank_of_kind
    from prices
    union all
    select
        *,
        'cache_write_unknown' as line_component,
        case when component = 'cache_write_{{ var("cache_write_ttl") }}' then 0 else 1 end as rank_of_kind
    from prices
    where component in ('cache_write_5m', 'cache_write_1h')
),

thresholds as (
    select distinct sheet_id, context_tier_min
    from prices
),

bands as (
    select
        sheet_id,
        context_tier_min as context_from,
        lead(context_tier_min) over (partition by sheet_id order by context_tier_min) as context_to
    from thresholds
),

-- A turn is the sum of several requests. Below the first threshold each of them was; above it, nobody knows: the lowest
-- tier is charged, the others are the exposure.
candidates as (
    select
        components.*,
        bands.context_from,
        bands.context_to,
        row_number() over (
            partition by components.sheet_id, components.line_component, components.dow_mask, components.tod_from,
                components.tod_to, bands.context_from
            order by components.context_tier_min, components.rank_of_kind, components.price_id
        ) as place,
        min(components.unit_price) over same_line as low_unit_price,
        max(components.unit_price) over same_line as high_unit_price,
        min(components.context_tier_min) over same_line
        < max(components.context_tier_min) over same_line as is_tier_ambiguous
    from components
    inner join bands
        on components.sheet_id = bands.sheet_id
        and components.context_tier_min <= bands.context_from
    window same_line as (
        partition by components.sheet_id, components.line_component, components.dow_mask, components.tod_from,
            components.tod_to, bands.context_from
    )
)

select
    candidates.price_id,
    candidates.sheet_id,
    candidates.provider_name,
    candidates.model,
    candidates.line_component as component,
    candidates.service_tier,
    candidates.currency,
    in_force.status,
    candidates.context_from,
    candidates.context_to,
    candidates.dow_mask,
    candidates.tod_from,
    candidates.tod_to,
    candidates.unit_price,
    candidates.low_unit_price,
    candidates.high_unit_price,
    candidates.is_batch,
    candidates.is_free,
    candidates.is_tier_ambiguous,
    in_force.decided_at as known_from,
    in_force.in_force_from,
    in_force.in_force_to
from candidates
inner join in_force using (sheet_id)
where candidates.place = 1
