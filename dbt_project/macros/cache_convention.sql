{# How a source counts cache tokens: within its input tokens (inclusive, as OpenTelemetry's GenAI conventions have it),
   beside them (exclusive), or reads within and writes beside (read_inclusive). `unproven`: nobody said, and the numbers
   do not tell. The wire keeps the numbers as they were reported; only here they become an input that includes cache. #}

{# The gateway of a turn: the first segment of the model's name as logged; NULL for a name without segments. #}
{% macro gateway(model) -%}
    case when contains({{ model }}, '/') then split_part({{ model }}, '/', 1) end
{%- endmacro %}

{# A word that names the tenant goes before one that names the model, and that before one that names the gateway. #}
{% macro cache_convention_rank(word) -%}
    ({{ word }}.tenant_id is not null, {{ word }}.model is not null, {{ word }}.gateway is not null, {{ word }}.recorded_at, {{ word }}.cache_convention_id)
{%- endmacro %}

{# More read or more written than the whole input is possible beside it only: evidence goes before anybody's word. Both
   together more than the input prove that not both are within, and no more than that. #}
{% macro cache_convention(input, read, write, stated) -%}
    case
        when {{ read }} + {{ write }} = 0 then 'inclusive'
        when {{ read }} > {{ input }} or {{ write }} > {{ input }} then 'exclusive'
        when {{ stated }} in ('exclusive', 'read_inclusive') then {{ stated }}
        when {{ read }} + {{ write }} > {{ input }} or {{ stated }} = 'unknown' then 'unproven'
        else 'inclusive'
    end
{%- endmacro %}

{% macro cache_convention_basis(input, read, write, stated) -%}
    case
        when {{ read }} + {{ write }} = 0 then 'none'
        when {{ read }} > {{ input }} or {{ write }} > {{ input }} then 'evidence'
        when {{ stated }} in ('exclusive', 'read_inclusive') then 'rule'
        when {{ read }} + {{ write }} > {{ input }} then 'evidence'
        when {{ stated }} is not null then 'rule'
        else 'default'
    end
{%- endmacro %}

{# Input tokens that include the cache. What is unproven is counted by the reading with the fewest tokens. #}
{% macro input_tokens_with_cache(input, read, write, convention) -%}
    case
        when {{ convention }} = 'exclusive' then {{ input }} + {{ read }} + {{ write }}
        when {{ convention }} = 'read_inclusive' then {{ input }} + {{ write }}
        when {{ read }} + {{ write }} > {{ input }} then {{ input }} + least({{ read }}, {{ write }})
        else {{ input }}
    end
{%- endmacro %}

{# Models of a tenant that have a turn whose numbers contradict that its cache is within its input. A turn of `default`
   basis and such a model is in doubt as well: the source may count all its turns so. #}
{% macro models_that_contradict_their_convention() -%}
    select distinct tenant_id, model
    from {{ ref('fct_llm_turns') }}
    where cache_convention_basis = 'evidence'
{%- endmacro %}
