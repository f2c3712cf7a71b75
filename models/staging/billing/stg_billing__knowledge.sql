with source as (
    select * from {{ source('billing', 'knowledge') }}
)

select
    -- Never the machine's clock: what was known is an input, and the books say how far they know.
    {% if var('known_at') -%}
    cast('{{ var("known_at") }}' as timestamp with time zone) as known_at
    {%- else -%}
    known_at
    {%- endif %}
from source
