{# Usage that two rules of identity tell twice. A record whose natural key holds a name had another identity in the first
   release (docs/decisions/0038): a device that was set up anew, or another device, sends it again under the new one.
   Such a row says so (`identity_version`), and takes its place beside a row of the first rule with the same figures.

   `figures`: the columns by which two rows are one record, keyed ones aside: devices may have different keys. `named`:
   which rows of the first rule have another identity under the new one. Of a pair the row that arrived later is left
   out; each row pairs once, so two records with equal figures stay two. `is_turn`, `cost`: for the ledger. #}
{% macro superseded_identities(table, figures, named, is_turn, cost) %}
    select
        tenant_id,
        '{{ table }}' as table_name,
        case when renamed_received_at < first_received_at then first_record_id else renamed_record_id end as record_id,
        renamed_session_id,
        first_session_id,
        _ingest_seq,
        is_turn,
        tokens,
        reported_cost_usd
    from (
        select
            tenant_id,
            max(record_id) filter (where identity_version is not null) as renamed_record_id,
            max(record_id) filter (where identity_version is null) as first_record_id,
            max(session_id) filter (where identity_version is not null) as renamed_session_id,
            max(session_id) filter (where identity_version is null) as first_session_id,
            max(_ingest_seq) as _ingest_seq,
            max(_received_at) filter (where identity_version is not null) as renamed_received_at,
            max(_received_at) filter (where identity_version is null) as first_received_at,
            bool_or({{ is_turn }}) as is_turn,
            max(input_tokens + output_tokens) as tokens,
            max({{ cost }}) as reported_cost_usd
        from (
            select
                *,
                row_number() over (
                    partition by tenant_id, session, {{ figures | join(', ') }}, identity_version
                    order by _received_at, record_id
                ) as place
            from (
                select
                    rows_of_wire.*,
                    {{ unkeyed('rows_of_wire.session_id') }} as session
                from {{ source('wire', table) }} as rows_of_wire
                -- Few rows are of the new rule: nothing is read for a tenant that has none.
                where rows_of_wire.tenant_id in (
                    select tenant_id from {{ source('wire', table) }} where identity_version is not null
                )
                    and (rows_of_wire.identity_version is not null or {{ named }})
            ) as candidates
        ) as placed
        group by tenant_id, session, {{ figures | join(', ') }}, place
    ) as pairs
    where renamed_record_id is not null
        and first_record_id is not null
{% endmacro %}

{# An identifier, or only that it is keyed. #}
{% macro unkeyed(column) -%}
    case when {{ is_keyed(column) }} then 'k1' else {{ column }} end
{%- endmacro %}

{% macro is_keyed(column) -%}
    starts_with({{ column }}, 'k1_')
{%- endmacro %}
