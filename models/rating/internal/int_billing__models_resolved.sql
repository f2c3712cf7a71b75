with spoken as (
    select
        model,
        valid_from,
        {{ latest('provider_name', 'recorded_at') }} as provider_name,
        {{ latest('price_model', 'recorded_at') }} as price_model
    from {{ ref('stg_billing__model_aliases') }}
    group by model, valid_from
),

-- A floating name, such as that of a family, means another model from a day on.
aliases as (
    select
        model,
        provider_name,
        price_model,
        coalesce(valid_from, date '1970-01-01') as valid_from,
        coalesce(
            lead(valid_from) over (partition by model order by valid_from nulls first), date '9999-12-31'
        ) as valid_to,
        valid_from is not null as is_dated
    from spoken
),

offers as (
    select distinct
        provider_name,
        model
    from {{ ref('stg_billing__price_book') }}
),

-- A name of the logs is an id of the book behind the segment that its provider's models are logged with, and no more:
-- a dated name is no relative of an undated one.
exact as (
    select
        case when prefixes.prefix is null then offers.model else concat(prefixes.prefix, '/', offers.model) end as model,
        offers.provider_name,
        offers.model as price_model
    from offers
    inner join {{ ref('stg_billing__model_prefixes') }} as prefixes using (provider_name)
),

-- A name that may be two providers' is nobody's until an alias says whose.
unambiguous as (
    select
        model,
        min(provider_name) as provider_name,
        min(price_model) as price_model,
        date '1970-01-01' as valid_from,
        date '9999-12-31' as valid_to,
        false as is_dated
    from exact
    group by model
    having count(*) = 1
)

select * from aliases
union all
select * from unambiguous
where not exists (select 1 from aliases where aliases.model = unambiguous.model)
