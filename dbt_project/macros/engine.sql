{# The words that differ from engine to engine: models call these and nothing else (tests/dbt/test_engines.py).

   `duckdb__` is what the warehouse runs. `spark__` is written as DuckDB SQL that calls Spark's functions by name: the
   compiled model goes through pipelines/spark/dialect.py, which rewrites what is the same in other words (lists, casts,
   intervals, QUALIFY, the order of NULL). What it rewrites needs no macro of two implementations. Spark's session is in
   UTC, so a cast between an instant and a date or a wall clock means UTC there. #}

{# The UTC day of an instant. A plain cast would take the session's zone: a day's bill would depend on who runs dbt. #}
{% macro utc_date(instant) -%}
    {{ adapter.dispatch('utc_date')(instant) }}
{%- endmacro %}

{% macro duckdb__utc_date(instant) -%}
    cast({{ instant }} at time zone 'UTC' as date)
{%- endmacro %}

{% macro spark__utc_date(instant) -%}
    cast({{ instant }} as date)
{%- endmacro %}

{# Microseconds since 1970 and back: windows over integers are exact, sums of intervals are calendar arithmetic. #}
{% macro to_micros(instant) -%}
    {{ adapter.dispatch('to_micros')(instant) }}
{%- endmacro %}

{% macro duckdb__to_micros(instant) -%}
    epoch_us({{ instant }})
{%- endmacro %}

{% macro spark__to_micros(instant) -%}
    unix_micros({{ instant }})
{%- endmacro %}

{% macro from_micros(micros) -%}
    {{ adapter.dispatch('from_micros')(micros) }}
{%- endmacro %}

{% macro duckdb__from_micros(micros) -%}
    make_timestamptz({{ micros }})
{%- endmacro %}

{% macro spark__from_micros(micros) -%}
    timestamp_micros({{ micros }})
{%- endmacro %}

{# The last and the first value that is not NULL, in the order of a number that is unique in the group. #}
{% macro latest(value, position) -%}
    {{ adapter.dispatch('latest')(value, position) }}
{%- endmacro %}

{% macro duckdb__latest(value, position) -%}
    max_by({{ value }}, {{ position }})
{%- endmacro %}

{% macro spark__latest(value, position) -%}
    max_by({{ value }}, case when ({{ value }}) is not null then {{ position }} end)
{%- endmacro %}

{% macro earliest(value, position) -%}
    {{ adapter.dispatch('earliest')(value, position) }}
{%- endmacro %}

{% macro duckdb__earliest(value, position) -%}
    min_by({{ value }}, {{ position }})
{%- endmacro %}

{% macro spark__earliest(value, position) -%}
    min_by({{ value }}, case when ({{ value }}) is not null then {{ position }} end)
{%- endmacro %}

{# A walk up a tree: the ids passed so far. #}
{% macro path_of(id) -%}
    [{{ id }}]
{%- endmacro %}

{% macro path_with(path, id) -%}
    {{ adapter.dispatch('path_with')(path, id) }}
{%- endmacro %}

{% macro duckdb__path_with(path, id) -%}
    list_append({{ path }}, {{ id }})
{%- endmacro %}

{% macro spark__path_with(path, id) -%}
    array_append({{ path }}, {{ id }})
{%- endmacro %}

{% macro path_holds(path, id) -%}
    {{ adapter.dispatch('path_holds')(path, id) }}
{%- endmacro %}

{% macro duckdb__path_holds(path, id) -%}
    list_contains({{ path }}, {{ id }})
{%- endmacro %}

{% macro spark__path_holds(path, id) -%}
    array_contains({{ path }}, {{ id }})
{%- endmacro %}

{# The body of the recursive CTE `name`: every session of `starts` with each `ancestor_id` that the edges lead to. Edges
   that lead in a circle are walked once. #}
{% macro walk_up(name, starts, edges, parent) -%}
    {{ adapter.dispatch('walk_up')(name, starts, edges, parent) }}
{%- endmacro %}

{# `union`, not `union all`: what was found already is not walked again. #}
{% macro duckdb__walk_up(name, starts, edges, parent) -%}
    select
        {{ edges }}.tenant_id,
        {{ edges }}.session_id,
        {{ edges }}.{{ parent }} as ancestor_id
    from {{ edges }}
    inner join {{ starts }}
        on {{ edges }}.tenant_id = {{ starts }}.tenant_id
        and {{ edges }}.session_id = {{ starts }}.session_id
    union
    select
        {{ name }}.tenant_id,
        {{ name }}.session_id,
        {{ edges }}.{{ parent }} as ancestor_id
    from {{ name }}
    inner join {{ edges }}
        on {{ name }}.tenant_id = {{ edges }}.tenant_id
        and {{ name }}.ancestor_id = {{ edges }}.session_id
{%- endmacro %}

{# Spark knows no `union` there: each walk remembers its own path, and ends after 64 steps. #}
{% macro spark__walk_up(name, starts, edges, parent) -%}
    select
        {{ edges }}.tenant_id,
        {{ edges }}.session_id,
        {{ edges }}.{{ parent }} as ancestor_id,
        {{ path_of(edges ~ '.' ~ parent) }} as path
    from {{ edges }}
    inner join {{ starts }}
        on {{ edges }}.tenant_id = {{ starts }}.tenant_id
        and {{ edges }}.session_id = {{ starts }}.session_id
    union all
    select
        {{ name }}.tenant_id,
        {{ name }}.session_id,
        {{ edges }}.{{ parent }} as ancestor_id,
        {{ path_with(name ~ '.path', edges ~ '.' ~ parent) }} as path
    from {{ name }}
    inner join {{ edges }}
        on {{ name }}.tenant_id = {{ edges }}.tenant_id
        and {{ name }}.ancestor_id = {{ edges }}.session_id
    where not {{ path_holds(name ~ '.path', edges ~ '.' ~ parent) }}
        and size({{ name }}.path) < 64
{%- endmacro %}

{# All columns of a query but some. #}
{% macro all_but(names) -%}
    * exclude ({{ names | join(', ') }})
{%- endmacro %}

{# All different values of a group as a path, NULL if there are none. #}
{% macro path_of_all(value) -%}
    {{ adapter.dispatch('path_of_all')(value) }}
{%- endmacro %}

{% macro duckdb__path_of_all(value) -%}
    list(distinct {{ value }})
{%- endmacro %}

{% macro spark__path_of_all(value) -%}
    case when count({{ value }}) > 0 then collect_set({{ value }}) end
{%- endmacro %}

{# How many steps lead from the start of the path to `id`. #}
{% macro path_steps(path, id) -%}
    {{ adapter.dispatch('path_steps')(path, id) }}
{%- endmacro %}

{% macro duckdb__path_steps(path, id) -%}
    (list_position({{ path }}, {{ id }}) - 1)
{%- endmacro %}

{% macro spark__path_steps(path, id) -%}
    cast(array_position({{ path }}, {{ id }}) - 1 as integer)
{%- endmacro %}

{# The smallest id of the path from `id` on: all members of one cycle agree on it. #}
{% macro path_minimum_from(path, id) -%}
    {{ adapter.dispatch('path_minimum_from')(path, id) }}
{%- endmacro %}

{% macro duckdb__path_minimum_from(path, id) -%}
    list_min(list_slice({{ path }}, list_position({{ path }}, {{ id }}), len({{ path }})))
{%- endmacro %}

{% macro spark__path_minimum_from(path, id) -%}
    array_min(slice({{ path }}, cast(array_position({{ path }}, {{ id }}) as integer), size({{ path }})))
{%- endmacro %}

{# One number for a row, and one for a set of different rows in any order. Compared only with numbers made
   by the same engine; after an upgrade that hashes differently every day is built again once. #}
{% macro fingerprint(expressions) -%}
    {{ adapter.dispatch('fingerprint')(expressions) }}
{%- endmacro %}

{% macro duckdb__fingerprint(expressions) -%}
    hash({{ expressions | join(', ') }})
{%- endmacro %}

{# Spark's hash passes over NULL: where it stands is part of the row. #}
{% macro spark__fingerprint(expressions) -%}
    xxhash64({% for expression in expressions %}{{ expression }}, ({{ expression }}) is null{{ ', ' if not loop.last }}{% endfor %})
{%- endmacro %}

{% macro fingerprint_of_all(number) -%}
    bit_xor({{ number }})
{%- endmacro %}

{# The clock on the wall of a zone at an instant; and the zones there are, for `in (…)`. #}
{% macro local_time(instant, zone) -%}
    {{ adapter.dispatch('local_time')(instant, zone) }}
{%- endmacro %}

{% macro duckdb__local_time(instant, zone) -%}
    ({{ instant }} at time zone {{ zone }})
{%- endmacro %}

{% macro spark__local_time(instant, zone) -%}
    from_utc_timestamp({{ instant }}, {{ zone }})
{%- endmacro %}

{# The same in microseconds, as if the wall clock showed UTC. #}
{% macro wall_clock_micros(instant, zone) -%}
    {{ to_micros(local_time(instant, zone)) }}
{%- endmacro %}

{% macro time_zone_names() -%}
    {{ adapter.dispatch('time_zone_names')() }}
{%- endmacro %}

{% macro duckdb__time_zone_names() -%}
    select name from pg_timezone_names()
{%- endmacro %}

{% macro spark__time_zone_names() -%}
    '{{ modules.pytz.all_timezones | join("', '") }}'
{%- endmacro %}

{# The second of the UTC day, 0 to 86399, and the bit of the UTC weekday: Monday is 1, Sunday 64. #}
{% macro utc_second_of_day(instant) -%}
    cast({{ to_micros(instant) }} // 1000000 % 86400 as bigint)
{%- endmacro %}

{% macro utc_weekday_bit(instant) -%}
    {{ adapter.dispatch('utc_weekday_bit')(instant) }}
{%- endmacro %}

{% macro duckdb__utc_weekday_bit(instant) -%}
    (1 << cast(isodow({{ instant }} at time zone 'UTC') - 1 as integer))
{%- endmacro %}

{% macro spark__utc_weekday_bit(instant) -%}
    shiftleft(1, weekday({{ instant }}))
{%- endmacro %}

{# The first instant of a UTC day. #}
{% macro utc_midnight(day) -%}
    {{ adapter.dispatch('utc_midnight')(day) }}
{%- endmacro %}

{% macro duckdb__utc_midnight(day) -%}
    cast({{ day }} as timestamp) at time zone 'UTC'
{%- endmacro %}

{% macro spark__utc_midnight(day) -%}
    cast({{ day }} as timestamptz)
{%- endmacro %}

{# An id of a row made of its key: the same on every engine and for ever. #}
{% macro id_of(parts) -%}
    md5(concat_ws('|', {{ parts | join(', ') }}))
{%- endmacro %}

{# The start of the span of some minutes, in UTC, that holds an instant. The minutes divide a day. #}
{% macro bucket_of(instant, minutes) -%}
    {{ adapter.dispatch('bucket_of')(instant, minutes) }}
{%- endmacro %}

{% macro duckdb__bucket_of(instant, minutes) -%}
    time_bucket(interval '{{ minutes }} minutes', {{ instant }}, timestamptz '2000-01-01 00:00:00+00')
{%- endmacro %}

{% macro spark__bucket_of(instant, minutes) -%}
    timestamp_micros(unix_micros({{ instant }}) - pmod(unix_micros({{ instant }}), {{ minutes * 60000000 }}))
{%- endmacro %}

{# An order by two values, the second deciding between equal firsts. #}
{% macro pair(first, second) -%}
    {{ adapter.dispatch('pair')(first, second) }}
{%- endmacro %}

{% macro duckdb__pair(first, second) -%}
    row({{ first }}, {{ second }})
{%- endmacro %}

{# Spark takes NULL for the smallest of a pair's values, DuckDB for the largest. #}
{% macro spark__pair(first, second) -%}
    named_struct('a', ({{ first }}) is null, 'b', {{ first }}, 'c', ({{ second }}) is null, 'd', {{ second }})
{%- endmacro %}

{# Seconds from one instant to a later one, with their fraction. #}
{% macro seconds_between(earlier, later) -%}
    (({{ to_micros(later) }} - {{ to_micros(earlier) }}) * 1e-6)
{%- endmacro %}

{# An instant some seconds later. #}
{% macro seconds_after(instant, seconds) -%}
    {{ adapter.dispatch('seconds_after')(instant, seconds) }}
{%- endmacro %}

{% macro duckdb__seconds_after(instant, seconds) -%}
    ({{ instant }} + to_seconds({{ seconds }}))
{%- endmacro %}

{% macro spark__seconds_after(instant, seconds) -%}
    timestamp_micros(unix_micros({{ instant }}) + cast(rint(({{ seconds }}) * cast(1000000 as bigint)) as bigint))
{%- endmacro %}

{# Days from one date to another. #}
{% macro days_between(earlier, later) -%}
    {{ adapter.dispatch('days_between')(earlier, later) }}
{%- endmacro %}

{% macro duckdb__days_between(earlier, later) -%}
    ({{ later }} - {{ earlier }})
{%- endmacro %}

{% macro spark__days_between(earlier, later) -%}
    (unix_date({{ later }}) - unix_date({{ earlier }}))
{%- endmacro %}

{% macro start_of_hour(instant) -%}
    date_trunc('hour', {{ instant }})
{%- endmacro %}

{# The value that a share of all values does not exceed: one that was seen, never one between two. `where` leaves out
   rows. #}
{% macro quantile(value, fraction, where=none) -%}
    {{ adapter.dispatch('quantile')(value, fraction, where) }}
{%- endmacro %}

{% macro duckdb__quantile(value, fraction, where) -%}
    quantile_disc({{ value }}, {{ fraction }}){{ filter_of(where) }}
{%- endmacro %}

{# Spark's percentile_disc makes a double of a decimal. #}
{% macro spark__quantile(value, fraction, where) -%}
    get(
        array_sort(collect_list({{ value }}){{ filter_of(where) }}),
        cast(ceil(count({{ value }}){{ filter_of(where) }} * {{ fraction }}) as integer) - 1
    )
{%- endmacro %}

{% macro filter_of(where) -%}
    {%- if where %} filter (where {{ where }}){% endif -%}
{%- endmacro %}

{# The ids of a path as one text, the top first. #}
{% macro path_text(path) -%}
    {{ adapter.dispatch('path_text')(path) }}
{%- endmacro %}

{% macro duckdb__path_text(path) -%}
    array_to_string(list_reverse({{ path }}), '/')
{%- endmacro %}

{% macro spark__path_text(path) -%}
    array_join(reverse({{ path }}), '/')
{%- endmacro %}

{# One row for each number from the first to the last, both included. #}
{% macro numbers_between(first, last) -%}
    {{ adapter.dispatch('numbers_between')(first, last) }}
{%- endmacro %}

{% macro duckdb__numbers_between(first, last) -%}
    unnest(range({{ first }}, {{ last }} + 1))
{%- endmacro %}

{# Spark's sequence runs downwards where the last is before the first. #}
{% macro spark__numbers_between(first, last) -%}
    explode(filter(sequence(cast({{ first }} as bigint), greatest({{ first }}, {{ last }})), number -> number <= {{ last }}))
{%- endmacro %}

{# One row for each day from the first to the last, both included, as a date. #}
{% macro dates_between(first, last) -%}
    {{ adapter.dispatch('dates_between')(first, last) }}
{%- endmacro %}

{% macro duckdb__dates_between(first, last) -%}
    cast(unnest(generate_series({{ first }}, {{ last }}, interval 1 day)) as date)
{%- endmacro %}

{% macro spark__dates_between(first, last) -%}
    explode(filter(sequence({{ first }}, greatest({{ first }}, {{ last }})), day -> day <= {{ last }}))
{%- endmacro %}

{# One row for each id of a text of ids. #}
{% macro each_of(text) -%}
    {{ adapter.dispatch('each_of')(text) }}
{%- endmacro %}

{% macro duckdb__each_of(text) -%}
    unnest(string_split({{ text }}, ','))
{%- endmacro %}

{% macro spark__each_of(text) -%}
    explode(split({{ text }}, ','))
{%- endmacro %}

{# The first day of the day or month after the one that holds a day. #}
{% macro next_period(period, day) -%}
    {{ adapter.dispatch('next_period')(period, day) }}
{%- endmacro %}

{% macro duckdb__next_period(period, day) -%}
    cast(date_trunc({{ period }}, {{ day }}) + case {{ period }} when 'day' then interval 1 day else interval 1 month end as date)
{%- endmacro %}

{% macro spark__next_period(period, day) -%}
    case {{ period }} when 'day' then {{ day }} + 1 else add_months(cast(date_trunc('month', {{ day }}) as date), 1) end
{%- endmacro %}

{# Names with a star stand for all names that fit. #}
{% macro is_pattern(name) -%}
    contains({{ name }}, '*')
{%- endmacro %}

{% macro fits_pattern(name, pattern) -%}
    {{ adapter.dispatch('fits_pattern')(name, pattern) }}
{%- endmacro %}

{% macro duckdb__fits_pattern(name, pattern) -%}
    ({{ name }} glob {{ pattern }})
{%- endmacro %}

{# The star alone: a set of characters in brackets, which DuckDB's GLOB knows too, is no pattern here. #}
{% macro spark__fits_pattern(name, pattern) -%}
    ({{ name }} like replace(replace(replace(replace({{ pattern }}, '!', '!!'), '%', '!%'), '_', '!_'), '*', '%') escape '!')
{%- endmacro %}

{# A number without its fraction, by rounding: engines cut it off or round when they cast. #}
{% macro nearest_integer(number) -%}
    {{ adapter.dispatch('nearest_integer')(number) }}
{%- endmacro %}

{% macro duckdb__nearest_integer(number) -%}
    cast({{ number }} as bigint)
{%- endmacro %}

{% macro spark__nearest_integer(number) -%}
    cast(rint({{ number }}) as bigint)
{%- endmacro %}

{# The quotient of integers of up to 38 digits, itself of up to 28, without its fraction. #}
{% macro whole_quotient(dividend, divisor) -%}
    {{ adapter.dispatch('whole_quotient')(dividend, divisor) }}
{%- endmacro %}

{% macro duckdb__whole_quotient(dividend, divisor) -%}
    (({{ dividend }}) // ({{ divisor }}))
{%- endmacro %}

{# Spark's DIV is of 64 bits, and its division is rounded: the rest is taken off before. #}
{% macro spark__whole_quotient(dividend, divisor) -%}
    cast(
        (cast({{ dividend }} as decimal(38, 0)) - cast({{ dividend }} as decimal(38, 0)) % ({{ divisor }}))
        / nullif({{ divisor }}, 0) as decimal(38, 0)
    )
{%- endmacro %}

{# An object of JSON as text, of names and expressions; NULL stays. #}
{% macro json_object_of(members) -%}
    {{ adapter.dispatch('json_object_of')(members) }}
{%- endmacro %}

{% macro duckdb__json_object_of(members) -%}
    cast(to_json({
        {%- for name, value in members.items() %}'{{ name }}': {{ value }}{{ ', ' if not loop.last }}{% endfor -%}
    }) as varchar)
{%- endmacro %}

{# Spark leaves NULL out of a struct, but not of a list. #}
{% macro spark__json_object_of(members) -%}
    '{' {% for name, value in members.items() -%}
    || '"{{ name }}":' || substr(to_json([{{ value }}]), 2, length(to_json([{{ value }}])) - 2)
    {{- " || ','" if not loop.last }} {% endfor -%} || '}'
{%- endmacro %}
