{# Lines of statements: what makes a line what it is, and what is turned round when it is taken back. #}

{# A line that differs in one of these is another line: the old one is reversed, the new one booked in its place. #}
{% macro line_facts() -%}
    {{ return([
        'record_id', 'billing_account_id', 'user_id', 'session_id', 'root_session_id', 'colony_id', 'provider_name',
        'model', 'component', 'charge_category', 'charge_frequency', 'description', 'price_id', 'contract_rate_id',
        'currency', 'consumed_unit', 'pricing_unit', 'consumed_quantity', 'pricing_quantity', 'list_unit_price',
        'contracted_unit_price', 'list_cost', 'contracted_cost', 'billed_cost', 'charge_start_date', 'charge_end_date'
    ]) }}
{%- endmacro %}

{# What is summed. Reversed, a measure changes its sign, so that a line and its reversal are nothing together. #}
{% macro line_measures() -%}
    {{ return(['events', 'consumed_quantity', 'pricing_quantity', 'list_cost', 'contracted_cost', 'billed_cost']) }}
{%- endmacro %}

{# What a row of the cost export is one of. NULL and the empty text are one key: an id never holds either. #}
{% macro row_key(columns) -%}
    md5(concat_ws('|', {% for column in columns %}coalesce(cast({{ column }} as varchar), ''){{ ', ' if not loop.last }}{% endfor %}))
{%- endmacro %}

{# The first day of a month. #}
{% macro month_of(day) -%}
    cast(date_trunc('month', {{ day }}) as date)
{%- endmacro %}

{# The first day of the month after. #}
{% macro next_month(day) -%}
    cast({{ day }} + interval 1 month as date)
{%- endmacro %}

{# The only rounding of amounts: to the minor unit of a currency (ISO 4217), a half goes away from zero. #}
{% macro rounded_amount(amount, currency) -%}
    case
        when {{ currency }} in ('BIF', 'CLP', 'DJF', 'GNF', 'ISK', 'JPY', 'KMF', 'KRW', 'PYG', 'RWF', 'UGX', 'VND', 'VUV', 'XAF', 'XOF', 'XPF')
            then cast(round({{ amount }}, 0) as decimal(18, 2))
        else cast(round({{ amount }}, 2) as decimal(18, 2))
    end
{%- endmacro %}

{# Days whose rows of the cost export may differ from those that stand: rated anew, or with corrections that belong to
   another period since one was reopened, or trusted in another way since a provider reported. #}
{% macro changed_export_days() %}
    select
        tenant_id,
        usage_date,
        max(_rating_seq) as _rating_seq
    from (
        select
            tenant_id,
            usage_date,
            _rating_seq
        from {{ ref('int_billing__rating_days') }}
        {% if is_incremental() -%}
        where _rating_seq > (select coalesce(max(_rating_seq), 0) from {{ this }})
        union all
        select
            stored.tenant_id,
            stored.usage_date,
            stored._rating_seq
        from {{ this }} as stored
        cross join {{ ref('int_billing__frozen') }} as frozen
        where stored."ChargeClass" = 'Correction'
            and stored.billing_period > frozen.closed_through
            and stored.billing_period <> frozen.correction_period
        {%- endif %}
    ) as candidates
    group by tenant_id, usage_date
{% endmacro %}

{# The words that provider reports and rated lines share for a kind of token. #}
{% macro token_type(component) -%}
    case when {{ component }} like 'cache_write%' then 'cache_write' else {{ component }} end
{%- endmacro %}

{# A model's name without the day of its release: reports write it, logs often do not. #}
{% macro undated_model(model) -%}
    regexp_replace({{ model }}, '-(\d{8}|\d{4}-\d{2}-\d{2})$', '')
{%- endmacro %}
