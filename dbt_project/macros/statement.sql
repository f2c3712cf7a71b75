{# Lines of statements: what makes a line what it is, and what is turned round when it is taken back. #}

{# A line that differs in one of these is another line: the old one is reversed, the new one booked in its place. Which
   row of a book states a price is none of them: a newer sheet with the same price corrects nothing. #}
{% macro line_facts() -%}
    {{ return([
        'record_id', 'billing_account_id', 'user_id', 'session_id', 'root_session_id', 'colony_id', 'provider_name',
        'model', 'component', 'charge_category', 'charge_frequency', 'description', 'settlement_id',
        'currency', 'consumed_unit', 'pricing_unit', 'consumed_quantity', 'pricing_quantity', 'list_unit_price',
        'contracted_unit_price', 'list_cost', 'contracted_cost', 'billed_cost', 'charge_start_date', 'charge_end_date'
    ]) }}
{%- endmacro %}

{# The columns of a line as it is rated now, in one order: usage has all of them, charges some. #}
{% macro current_line_columns() -%}
    {{ return([
        'line_id', 'record_id', 'tenant_id', 'billing_account_id', 'user_id', 'session_id', 'root_session_id',
        'colony_id', 'queen_id', 'provider_name', 'model', 'model_basis', 'component', 'charge_category',
        'charge_frequency', 'description', 'price_id', 'contract_rate_id', 'settlement_id', 'currency', 'consumed_unit',
        'pricing_unit', 'trust_grade', 'events', 'consumed_quantity', 'pricing_quantity', 'pricing_currency',
        'fx_rate_id', 'pricing_unit_price', 'pricing_contracted_unit_price', 'list_unit_price', 'contracted_unit_price',
        'list_cost', 'contracted_cost', 'billed_cost', 'charge_start_date', 'charge_end_date', 'rated_as_of'
    ]) }}
{%- endmacro %}

{# The columns of a line that is in no closed statement, in one order. #}
{% macro pending_line_columns() -%}
    {{ return(current_line_columns() + [
        'incurred_period', 'original_period', 'billing_period', 'effective_cost', 'line_kind', 'cause'
    ]) }}
{%- endmacro %}

{# What is summed. Reversed, a measure changes its sign, so that a line and its reversal are nothing together. #}
{% macro line_measures() -%}
    {{ return(['events', 'consumed_quantity', 'pricing_quantity', 'list_cost', 'contracted_cost', 'billed_cost']) }}
{%- endmacro %}

{# What a row of the cost export is one of. NULL and the empty text are one key: an id never holds either. `later`:
   columns that rows of earlier versions do not have. One that is NULL is no part of the key: theirs stay as they are. #}
{% macro row_key(columns, later=()) -%}
    md5(concat_ws('|', {% for column in columns %}coalesce(cast({{ column }} as varchar), ''){{ ', ' if not loop.last }}{% endfor %}{% for column in later %}, cast({{ column }} as varchar){% endfor %}))
{%- endmacro %}

{# The first day of a month. #}
{% macro month_of(day) -%}
    cast(date_trunc('month', {{ day }}) as date)
{%- endmacro %}

{# The first day of the month after. #}
{% macro next_month(day) -%}
    cast({{ day }} + interval 1 month as date)
{%- endmacro %}

{# Currencies whose minor unit is the unit (ISO 4217); the others have two digits (pipelines/billing/books.py refuses
   those of three). #}
{% macro has_no_minor_unit(currency) -%}
    {{ currency }} in ('BIF', 'CLP', 'DJF', 'GNF', 'ISK', 'JPY', 'KMF', 'KRW', 'PYG', 'RWF', 'UGX', 'UYI', 'VND', 'VUV', 'XAF', 'XOF', 'XPF')
{%- endmacro %}

{# An amount counted in minor units of its currency, not rounded. #}
{% macro minor_units(amount, currency) -%}
    cast({{ amount }} as decimal(35, 15)) * case when {{ has_no_minor_unit(currency) }} then 1 else 100 end
{%- endmacro %}

{# Minor units that were cut down to a whole number: what a line of an invoice has before the spare ones are spread. #}
{% macro whole_minor_units(units) -%}
    floor({{ units }})
{%- endmacro %}

{# Minor units that an invoice asks for: rounded once, a half away from zero. #}
{% macro payable_minor_units(units) -%}
    round({{ units }}, 0)
{%- endmacro %}

{# Minor units as an amount of their currency. #}
{% macro amount_of_minor_units(units, currency) -%}
    cast(
        cast({{ units }} as decimal(18, 0))
        * case when {{ has_no_minor_unit(currency) }} then cast(1 as decimal(3, 2)) else cast(0.01 as decimal(3, 2)) end
        as decimal(18, 2)
    )
{%- endmacro %}

{# Days of a tenant whose booked lines may differ from those that stand: rated anew, trusted in another way since a
   provider reported, with other charges of the month on its first day, another name of the account or the queen, or
   closed since. A day that had lines once stays known. `_booking_seq` counts the builds that changed anything. #}
{% macro changed_booking_inputs() %}
    with rated as (
        select * from {{ ref('int_billing__rating_days') }}
    ),

    charged as (
        select
            tenant_id,
            billing_month as usage_date,
            {{ fingerprint_of_all(fingerprint([
                'charge_id', 'billing_account_id', 'plan_item_id', 'user_id', 'currency', 'quantity', 'amount'
            ])) }} as _fingerprint
        from {{ ref('fct_charges') }}
        group by tenant_id, billing_month
    ),

    sealed as (
        select
            tenant_id,
            charge_start_date as usage_date,
            max(seal_seq) as seal_seq
        from {{ ref('stg_billing__closed_lines') }}
        group by tenant_id, charge_start_date
    ),

    matched as (
        select
            usage_date,
            {{ fingerprint_of_all(fingerprint(['provider_name', 'model', 'token_type'])) }} as _fingerprint
        from {{ ref('rpt_reconciliation') }}
        where variance_class in ('match', 'within_tolerance')
        group by usage_date
    ),

    queens as (
        select
            days.tenant_id,
            days.usage_date,
            {{ fingerprint_of_all(fingerprint(['days.session_id', 'sessions.queen_name'])) }} as _fingerprint
        from {{ ref('int_usage__session_days') }} as days
        inner join {{ ref('int_sessions__observations_merged') }} as sessions
            on days.tenant_id = sessions.tenant_id
            and days.root_session_id = sessions.session_id
        where sessions.queen_name is not null
        group by days.tenant_id, days.usage_date
    ),

    days as (
        select tenant_id, usage_date from rated
        union
        select tenant_id, usage_date from charged
        union
        select tenant_id, usage_date from sealed
    ),

    payers as (
        select tenant_id, billing_account_id from {{ ref('dim_billing_accounts') }}
        where tenant_id is not null
        union
        select tenant_id, billing_account_id from {{ ref('stg_billing__closed_lines') }}
        union
        select distinct tenant_id, 'UNATTRIBUTED' as billing_account_id from days
    ),

    frozen as (
        select
            days.tenant_id,
            days.usage_date,
            {{ fingerprint_of_all(fingerprint([
                'payers.billing_account_id', month_of('days.usage_date') ~ ' <= frozen.closed_through'
            ])) }} as _fingerprint
        from days
        inner join payers using (tenant_id)
        inner join {{ ref('int_billing__frozen') }} as frozen using (billing_account_id)
        group by days.tenant_id, days.usage_date
    ),

    names as (
        select
            tenant_id,
            {{ fingerprint_of_all(fingerprint(['billing_account_id', 'name', 'valid_from', 'valid_to'])) }} as _fingerprint
        from {{ ref('dim_billing_accounts') }}
        where tenant_id is not null
        group by tenant_id
    ),

    written_off as (
        select
            accounts.tenant_id,
            {{ fingerprint_of_all(fingerprint([
                'settlements.settlement_id', 'settlements.model', 'settlements.billing_period', 'settlements.reason'
            ])) }} as _fingerprint
        from {{ ref('stg_billing__settlements') }} as settlements
        inner join payers as accounts using (billing_account_id)
        where settlements.kind = 'write_off'
        group by accounts.tenant_id
    ),

    -- Usage that a plan covers carries the plan's cost by its share of the month's tokens: of an account with a plan each
    -- day hangs on the others of its month.
    covered as (
        select
            payers.tenant_id,
            plans.billing_month,
            {{ fingerprint_of_all(fingerprint(['plans.billing_account_id', 'plans._fingerprint', 'days._fingerprint'])) }}
                as _fingerprint
        from (
            select
                billing_account_id,
                billing_month,
                {{ fingerprint_of_all(fingerprint(['charge_id', 'amount'])) }} as _fingerprint
            from {{ ref('fct_charges') }}
            where charge_kind = 'plan'
            group by billing_account_id, billing_month
        ) as plans
        inner join payers using (billing_account_id)
        left join (
            select
                tenant_id,
                {{ month_of('usage_date') }} as billing_month,
                {{ fingerprint_of_all(fingerprint(['usage_date', '_rating_seq'])) }} as _fingerprint
            from rated
            group by tenant_id, {{ month_of('usage_date') }}
        ) as days
            on payers.tenant_id = days.tenant_id
            and plans.billing_month = days.billing_month
        group by payers.tenant_id, plans.billing_month
    ),

    current_days as (
        select
            days.tenant_id,
            days.usage_date,
            {{ fingerprint([
                'covered._fingerprint', 'rated._rating_seq', 'charged._fingerprint', 'sealed.seal_seq', 'matched._fingerprint',
                'queens._fingerprint', 'names._fingerprint', 'written_off._fingerprint', 'frozen._fingerprint'
            ]) }} as _fingerprint
        from days
        left join frozen using (tenant_id, usage_date)
        left join rated using (tenant_id, usage_date)
        left join charged using (tenant_id, usage_date)
        left join sealed using (tenant_id, usage_date)
        left join matched using (usage_date)
        left join queens using (tenant_id, usage_date)
        left join names using (tenant_id)
        left join covered
            on days.tenant_id = covered.tenant_id
            and {{ month_of('days.usage_date') }} = covered.billing_month
        left join written_off using (tenant_id)
    )

    {% if is_incremental() -%}
    select
        coalesce(current_days.tenant_id, stored.tenant_id) as tenant_id,
        coalesce(current_days.usage_date, stored.usage_date) as usage_date,
        current_days._fingerprint,
        cast((select coalesce(max(_booking_seq), 0) + 1 from {{ this }}) as bigint) as _booking_seq
    from current_days
    full outer join {{ this }} as stored
        on current_days.tenant_id = stored.tenant_id
        and current_days.usage_date = stored.usage_date
    where current_days._fingerprint is distinct from stored._fingerprint
    {%- else -%}
    select
        tenant_id,
        usage_date,
        _fingerprint,
        cast(1 as bigint) as _booking_seq
    from current_days
    {%- endif %}
{% endmacro %}

{# Days to build again of the cost export: what is booked on them changed, or they hold corrections that belong to
   another period since one was reopened. #}
{% macro changed_export_days() %}
    select
        tenant_id,
        usage_date,
        max(_booking_seq) as _booking_seq
    from (
        select
            tenant_id,
            usage_date,
            _booking_seq
        from {{ ref('int_billing__booking_days') }}
        {% if is_incremental() -%}
        where _booking_seq > (select coalesce(max(_booking_seq), 0) from {{ this }})
        union all
        select
            stored.tenant_id,
            stored.usage_date,
            stored._booking_seq
        from {{ this }} as stored
        inner join {{ ref('int_billing__frozen') }} as frozen
            on stored."BillingAccountId" = frozen.billing_account_id
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

{# Whether terms of an account are those of a day of a month. #}
{% macro is_in_month(terms, month) -%}
    ({{ next_month(month) }} > {{ terms }}.valid_from and ({{ terms }}.valid_to is null or {{ month }} < {{ terms }}.valid_to))
{%- endmacro %}

{# The order of terms: the last that began before a day, or else the first after it. #}
{% macro nearest_terms(terms, day) -%}
    {{ day }} > {{ terms }}.valid_from desc,
    case when {{ day }} > {{ terms }}.valid_from then {{ terms }}.valid_from end desc,
    {{ terms }}.valid_from
{%- endmacro %}

{# Of each line of an account what closed statements said last, unless they took it back. #}
{% macro lines_in_force(condition='true') -%}
    select * exclude (place)
    from (
        select
            *,
            row_number() over (
                partition by tenant_id, line_id, billing_account_id
                order by seal_seq desc, line_kind = 'reversal'
            ) as place
        from {{ ref('stg_billing__closed_lines') }}
        where {{ condition }}
    ) as numbered
    where place = 1 and line_kind <> 'reversal'
{%- endmacro %}

{# Whether a charge of a plan is for usage that there is. #}
{% macro counts_usage(charges) -%}
    ({{ charges }}.charge_kind = 'plan' and {{ charges }}.item in ('tokens', 'colony_day') and {{ charges }}.quantity > 0)
{%- endmacro %}
