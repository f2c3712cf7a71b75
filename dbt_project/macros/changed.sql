{# What a model has to look at again: queries of keys with the load that changed them. A model's SQL and the delete of
   `replace_changed` both render the same query, so they cannot disagree.

   The watermark is the target's own max(_ingest_seq): a model that failed catches up in its next run, whatever the
   others did. A key that has no row any more leaves the watermark where it was: it is looked at again, to no effect. #}

{% macro watermark() -%}
    {%- if is_incremental() -%}
    (select coalesce(max(_ingest_seq), -1) from {{ this }})
    {%- else -%}
    -1
    {%- endif -%}
{%- endmacro %}

{# Days of a model of sessions and their days on which a load since the watermark changed something. #}
{% macro days_loaded(model, date='usage_date') %}
    select
        tenant_id,
        {{ date }},
        max(_ingest_seq) as _ingest_seq
    from {{ ref(model) }}
    where _ingest_seq > {{ watermark() }}
    group by tenant_id, {{ date }}
{% endmacro %}

{# Of `current_days` those whose column, or whose last load, is not what this model has of them. `_rating_seq` counts the
   builds that found one, as `_ingest_seq` counts loads: books change without a load. #}
{% macro days_that_differ(column) %}
    select
        current_days.tenant_id,
        current_days.usage_date,
        current_days.{{ column }},
        current_days._ingest_seq,
        {% if is_incremental() -%}
        cast((select coalesce(max(_rating_seq), 0) + 1 from {{ this }}) as bigint) as _rating_seq
    from current_days
    left join {{ this }} as stored using (tenant_id, usage_date)
    where current_days.{{ column }} is distinct from stored.{{ column }}
        or current_days._ingest_seq is distinct from stored._ingest_seq
        {%- else -%}
        cast(1 as bigint) as _rating_seq
    from current_days
        {%- endif %}
{% endmacro %}

{# Days of such a model that it counted since. #}
{% macro days_counted(model) %}
    select
        tenant_id,
        usage_date,
        _ingest_seq,
        _rating_seq
    from {{ ref(model) }}
    {% if is_incremental() -%}
    where _rating_seq > (select coalesce(max(_rating_seq), 0) from {{ this }})
    {%- endif %}
{% endmacro %}

{# Sessions that a load since the watermark brought rows of, their own or of a session whose log they copied; all of them
   in a full refresh. #}
{% macro changed_sessions() %}
    select
        tenant_id,
        session_id,
        max(_ingest_seq) as _ingest_seq
    from {{ ref('stg_wire__touched_sessions') }}
    where _ingest_seq > {{ watermark() }}
    group by tenant_id, session_id
{% endmacro %}

{# The same, and sessions whose user, colony or root became another one through rows of other sessions. #}
{% macro changed_or_moved_sessions(watches_time_zone=false) %}
    select
        tenant_id,
        session_id,
        max(_ingest_seq) as _ingest_seq
    from (
        {{ changed_sessions() }}
        {% if is_incremental() %}
        union all
        select distinct
            stored.tenant_id,
            stored.session_id,
            (select max(_ingest_seq) from {{ ref('stg_wire__touched_sessions') }}) as _ingest_seq
        from {{ this }} as stored
        left join {{ ref('int_sessions__tree_resolved') }} as resolved using (tenant_id, session_id)
        {%- if watches_time_zone %}
        left join {{ ref('int_tenants__time_zones') }} as zones using (tenant_id)
        {%- endif %}
        where stored.user_id is distinct from resolved.user_id
            or stored.colony_id is distinct from resolved.colony_id
            or stored.root_session_id is distinct from resolved.root_session_id
            {%- if watches_time_zone %}
            or stored.time_zone is distinct from coalesce(zones.time_zone, 'UTC')
            {%- endif %}
        {% endif %}
    ) as candidates
    group by tenant_id, session_id
{% endmacro %}

{# The same, and sessions whose tenant reports in another zone now. #}
{% macro changed_moved_or_rezoned_sessions() %}
    {{- changed_or_moved_sessions(watches_time_zone=true) -}}
{% endmacro %}

{# Sessions that changed, and the children of those: what a child took over depends on its parent's turns. #}
{% macro changed_sessions_and_children() %}
    select
        tenant_id,
        session_id,
        max(_ingest_seq) as _ingest_seq
    from (
        {{ changed_sessions() }}
        union all
        select
            children.tenant_id,
            children.session_id,
            parents._ingest_seq
        from ({{ changed_sessions() }}) as parents
        inner join {{ ref('int_sessions__observations_merged') }} as children
            on parents.tenant_id = children.tenant_id
            and parents.session_id = children.parent_session_id
    ) as candidates
    group by tenant_id, session_id
{% endmacro %}

{# Days on which the turns of any session changed, or used to be before it changed. #}
{% macro changed_turn_days() %}
    {{- days_loaded('int_usage__session_days') -}}
{% endmacro %}

{# The same of everything that analytics say of a day: turns, tool calls, waste, the tenant's time zone. #}
{% macro changed_days() %}
    {{- days_loaded('int_analytics__session_days') -}}
{% endmacro %}

{# Days whose rated lines may differ from those that stand: usage of the day changed, or a price, an alias, an account, a
   contract or a rate of exchange that its lines look at. A price for next month touches no day of this one. #}
{% macro changed_rating_inputs() %}
    with days as (
        select
            tenant_id,
            usage_date,
            max(_ingest_seq) as _ingest_seq
        from {{ ref('int_usage__session_days') }}
        group by tenant_id, usage_date
    ),

    day_models as (
        select
            tenant_id,
            usage_date,
            model
        from {{ ref('int_usage__day_models') }}
        union
        -- As what turns without a model are rated: where a session's other turns name it, any day may change it.
        select
            tenant_id,
            usage_date,
            model
        from {{ ref('int_billing__models_assumed') }}
    ),

    assumed as (
        select
            tenant_id,
            usage_date,
            {{ fingerprint_of_all(fingerprint(['turn_id', 'model', 'model_basis'])) }} as _fingerprint
        from {{ ref('int_billing__models_assumed') }}
        group by tenant_id, usage_date
    ),

    rates as (
        select * from {{ ref('int_billing__rates_in_force') }}
    ),

    dates as (
        select distinct
            usage_date,
            model
        from day_models
    ),

    model_rates as (
        select
            dates.usage_date,
            dates.model,
            bool_or(rates.status = 'approved') as is_priced,
            {{ fingerprint_of_all(fingerprint([
                'rates.price_id', 'rates.status', 'rates.component', 'rates.context_from', 'rates.tod_from',
                'aliases.is_dated',
                'rates.known_from', 'rates.unit_price', 'rates.low_unit_price', 'rates.high_unit_price',
                'greatest(rates.in_force_from, ' ~ utc_midnight('dates.usage_date') ~ ')',
                'least(rates.in_force_to, ' ~ utc_midnight('dates.usage_date + 1') ~ ')'
            ])) }} as _fingerprint
        from dates
        inner join {{ ref('int_billing__models_resolved') }} as aliases
            on dates.model = aliases.model
            and dates.usage_date >= aliases.valid_from
            and dates.usage_date < aliases.valid_to
        inner join rates
            on aliases.provider_name = rates.provider_name
            and aliases.price_model = rates.model
            and rates.in_force_from < {{ utc_midnight('dates.usage_date + 1') }}
            and (rates.in_force_to is null or rates.in_force_to > {{ utc_midnight('dates.usage_date') }})
        group by dates.usage_date, dates.model
    ),

    -- A model without a price may cost whatever the book knows of a component: its cheapest and its dearest price.
    book_ranges as (
        select
            days.usage_date,
            rates.component,
            min(rates.low_unit_price) as low_unit_price,
            max(rates.high_unit_price) as high_unit_price
        from (select distinct usage_date from dates) as days
        inner join rates
            on rates.status = 'approved'
            and rates.service_tier = 'standard'
            and rates.currency = 'USD'
            and rates.in_force_from < {{ utc_midnight('days.usage_date + 1') }}
            and (rates.in_force_to is null or rates.in_force_to > {{ utc_midnight('days.usage_date') }})
        group by days.usage_date, rates.component
    ),

    day_ranges as (
        select
            usage_date,
            {{ fingerprint_of_all(fingerprint(['component', 'low_unit_price', 'high_unit_price'])) }} as _fingerprint
        from book_ranges
        group by usage_date
    ),

    -- The name takes part: two models without a price would take each other out of the day's fingerprint.
    date_rates as (
        select
            dates.usage_date,
            dates.model,
            {{ fingerprint([
                'dates.model', 'model_rates._fingerprint',
                'case when model_rates.is_priced is not true then day_ranges._fingerprint end'
            ]) }} as _fingerprint
        from dates
        left join model_rates using (usage_date, model)
        left join day_ranges using (usage_date)
    ),

    tenant_rates as (
        select
            day_models.tenant_id,
            day_models.usage_date,
            {{ fingerprint_of_all('date_rates._fingerprint') }} as _fingerprint
        from day_models
        inner join date_rates using (usage_date, model)
        group by day_models.tenant_id, day_models.usage_date
    ),

    conventions as (
        select
            day_models.tenant_id,
            day_models.usage_date,
            {{ fingerprint_of_all(fingerprint(['day_models.model'])) }} as _fingerprint
        from day_models
        inner join ({{ models_that_contradict_their_convention() }}) as contradicted using (tenant_id, model)
        group by day_models.tenant_id, day_models.usage_date
    ),

    contracts as (
        select
            accounts.tenant_id,
            {{ fingerprint_of_all(fingerprint([
                'accounts.valid_from', 'rates.contract_rate_id', 'rates.valid_from', 'rates.valid_to',
                'rates.recorded_at'
            ])) }} as _fingerprint
        from {{ ref('dim_billing_accounts') }} as accounts
        inner join {{ ref('stg_billing__contract_rates') }} as rates using (billing_account_id)
        group by accounts.tenant_id
    ),

    exchange as (
        select
            accounts.tenant_id,
            {{ fingerprint_of_all(fingerprint(['accounts.valid_from', 'fx_rate_id', 'rate'])) }} as _fingerprint
        from {{ ref('dim_billing_accounts') }} as accounts
        inner join {{ ref('stg_billing__fx_rates') }} as rates
            on accounts.currency = rates.currency_to
        group by accounts.tenant_id
    ),

    current_days as (
        select
            days.tenant_id,
            days.usage_date,
            {{ fingerprint([
                'tenant_rates._fingerprint', 'conventions._fingerprint', 'contracts._fingerprint', 'exchange._fingerprint',
                'accounts.billing_account_id', 'accounts.currency', 'accounts.charged_by', 'assumed._fingerprint'
            ]) }} as _fingerprint,
            days._ingest_seq
        from days
        left join assumed using (tenant_id, usage_date)
        left join tenant_rates using (tenant_id, usage_date)
        left join conventions using (tenant_id, usage_date)
        left join {{ ref('dim_billing_accounts') }} as accounts
            on days.tenant_id = accounts.tenant_id
            and days.usage_date >= accounts.valid_from
            and days.usage_date < coalesce(accounts.valid_to, date '9999-12-31')
        left join contracts using (tenant_id)
        left join exchange using (tenant_id)
    )

    {{ days_that_differ('_fingerprint') }}
{% endmacro %}

{# Days whose usage or rating differs from what analytics were built of. #}
{% macro changed_usage_inputs() %}
    with days as (
        select
            tenant_id,
            usage_date,
            max(_ingest_seq) as _ingest_seq
        from {{ ref('int_analytics__session_days') }}
        group by tenant_id, usage_date
    ),

    current_days as (
        select
            days.tenant_id,
            days.usage_date,
            rated._rating_seq as _rated_seq,
            days._ingest_seq
        from days
        left join {{ ref('int_billing__rating_days') }} as rated using (tenant_id, usage_date)
    )

    {{ days_that_differ('_rated_seq') }}
{% endmacro %}

{# Days of usage to sum up again. #}
{% macro changed_usage_days() %}
    {{- days_counted('int_analytics__usage_days') -}}
{% endmacro %}

{# Days to rate again. #}
{% macro changed_rating_days() %}
    {{- days_counted('int_billing__rating_days') -}}
{% endmacro %}

{# Days whose exceptions may differ: rated anew, with turns that are held or were, or told of in another way since, or
   on which a device refused turns. #}
{% macro changed_exception_days() %}
    select
        candidates.tenant_id,
        candidates.usage_date,
        coalesce(max(rated._rating_seq), 0) as _rating_seq
    from (
        select tenant_id, usage_date
        from ({{ changed_rating_days() }}) as rated_days
        union all
        select tenant_id, {{ utc_date('occurred_at') }} as usage_date
        from {{ ref('mart_held_turns') }}
        union all
        select tenant_id, delivery_date as usage_date
        from {{ ref('int_delivery__device_days') }}
        where turn_lines_rejected > 0 and device_id <> 'ERASED'
        {% if is_incremental() -%}
        union all
        select tenant_id, usage_date
        from {{ this }}
        where exception_kind = 'future_dated'
        union all
        select lines.tenant_id, lines.usage_date
        from {{ ref('fct_rated_lines') }} as lines
        inner join {{ ref('stg_wire__conflicts') }} as conflicts using (tenant_id, record_id)
        where conflicts._ingest_seq > {{ watermark() }}
        {%- endif %}
    ) as candidates
    left join {{ ref('int_billing__rating_days') }} as rated using (tenant_id, usage_date)
    group by candidates.tenant_id, candidates.usage_date
{% endmacro %}

{# The same of what sessions did: events, runs, exits of nodes. #}
{% macro changed_activity_days() %}
    {{- days_loaded('int_status__session_days', 'activity_date') -}}
{% endmacro %}

{# Days on which either changed, for what stands on both. #}
{% macro changed_usage_or_activity_days() %}
    select
        tenant_id,
        usage_date,
        max(_ingest_seq) as _ingest_seq
    from (
        {{ changed_days() }}
        union all
        select tenant_id, activity_date as usage_date, _ingest_seq
        from ({{ changed_activity_days() }}) as activity_days
    ) as both_days
    group by tenant_id, usage_date
{% endmacro %}

{# Days of a device on which it read files, or on which a batch of it arrived. #}
{% macro changed_device_days() %}
    select
        tenant_id,
        device_id,
        delivery_date,
        max(_ingest_seq) as _ingest_seq
    from (
        select
            tenant_id,
            _device_id as device_id,
            observed_date as delivery_date,
            _ingest_seq
        from {{ ref('stg_wire__source_files') }}
        where _ingest_seq > {{ watermark() }}
        union all
        select
            tenant_id,
            coalesce(device_id, 'ERASED') as device_id,
            received_date as delivery_date,
            _ingest_seq
        from {{ ref('stg_wire__batches') }}
        where _ingest_seq > {{ watermark() }}
        {% if is_incremental() -%}
        -- A batch that was taken out of the wire takes its rows along, from any day.
        union all
        select distinct
            stored.tenant_id,
            stored.device_id,
            stored.delivery_date,
            batches._ingest_seq
        from {{ this }} as stored
        inner join {{ ref('stg_wire__batches') }} as batches using (tenant_id, device_id)
        where batches._ingest_seq > {{ watermark() }}
            and batches.status = 'quarantined'
        {%- endif %}
    ) as candidates
    group by tenant_id, device_id, delivery_date
{% endmacro %}
