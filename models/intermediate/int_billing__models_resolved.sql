with aliases as (
    select * from {{ ref('stg_billing__model_aliases') }}
)

select
    model,
    {{ latest('provider_name', 'recorded_at') }} as provider_name,
    {{ latest('price_model', 'recorded_at') }} as price_model
from aliases
group by model
