with prices as (
    select * from {{ ref('stg_billing__price_book') }}
),

decisions as (
    select
        sheet_id,
        {{ latest('decision', 'decided_at') }} as decision,
        {{ latest('decided_by', 'decided_at') }} as decided_by,
        {{ latest('reason', 'decided_at') }} as reason,
        max(decided_at) as decided_at
    from {{ ref('stg_billing__price_decisions') }}
    group by sheet_id
),

sheets as (
    select distinct
        prices.sheet_id,
        prices.provider_name,
        prices.model,
        prices.service_tier,
        prices.is_batch,
        prices.valid_from,
        prices.valid_to,
        decisions.decided_at
    from prices
    inner join decisions using (sheet_id)
    where decisions.decision = 'approve'
),

-- When a later word first took an instant of a sheet away from it.
superseded as (
    select
        old.sheet_id,
        min(new.decided_at) as superseded_at
    from sheets as old
    inner join sheets as new
        on old.provider_name = new.provider_name
        and old.model = new.model
        and old.service_tier = new.service_tier
        and old.is_batch = new.is_batch
        and old.decided_at < new.decided_at
        and (old.valid_to is null or new.valid_from < old.valid_to)
        and (new.valid_to is null or old.valid_from < new.valid_to)
    group by old.sheet_id
)

select
    prices.price_id,
    prices.sheet_id,
    prices.provider_name,
    prices.model,
    prices.component,
    prices.service_tier,
    prices.currency,
    prices.unit,
    case decisions.decision
        when 'approve' then 'approved'
        when 'reject' then 'rejected'
        when 'corroborate' then 'corroborating'
        else 'proposed'
    end as status,
    prices.source,
    prices.source_version,
    prices.source_sha256,
    decisions.decided_by as approved_by,
    decisions.reason,
    prices.note,
    prices.context_tier_min,
    prices.dow_mask,
    prices.tod_from,
    prices.tod_to,
    prices.unit_quantity,
    prices.unit_price,
    prices.is_batch,
    prices.is_free,
    prices.valid_from,
    prices.valid_to,
    prices.recorded_at,
    decisions.decided_at as approved_at,
    superseded.superseded_at
from prices
left join decisions using (sheet_id)
left join superseded using (sheet_id)
