{# The words that differ from engine to engine. Everything here is DuckDB's; models call these and nothing else. #}

{# The UTC day of an instant. A plain cast would take the session's zone: a day's bill would depend on who runs dbt. #}
{% macro utc_date(instant) -%}
    cast({{ instant }} at time zone 'UTC' as date)
{%- endmacro %}

{# Microseconds since 1970 and back: windows over integers are exact, sums of intervals are calendar arithmetic. #}
{% macro to_micros(instant) -%}
    epoch_us({{ instant }})
{%- endmacro %}

{% macro from_micros(micros) -%}
    make_timestamptz({{ micros }})
{%- endmacro %}

{# The last and the first value that is not NULL, in the order of a number that is unique in the group. #}
{% macro latest(value, position) -%}
    max_by({{ value }}, {{ position }})
{%- endmacro %}

{% macro earliest(value, position) -%}
    min_by({{ value }}, {{ position }})
{%- endmacro %}

{# A walk up a tree: the ids passed so far. #}
{% macro path_of(id) -%}
    [{{ id }}]
{%- endmacro %}

{% macro path_with(path, id) -%}
    list_append({{ path }}, {{ id }})
{%- endmacro %}

{% macro path_holds(path, id) -%}
    list_contains({{ path }}, {{ id }})
{%- endmacro %}

{# All columns of a query but some. #}
{% macro all_but(names) -%}
    * exclude ({{ names | join(', ') }})
{%- endmacro %}

{# All different values of a group as a path. #}
{% macro path_of_all(value) -%}
    list(distinct {{ value }})
{%- endmacro %}

{# How many steps lead from the start of the path to `id`. #}
{% macro path_steps(path, id) -%}
    (list_position({{ path }}, {{ id }}) - 1)
{%- endmacro %}

{# The smallest id of the path from `id` on: all members of one cycle agree on it. #}
{% macro path_minimum_from(path, id) -%}
    list_min(list_slice({{ path }}, list_position({{ path }}, {{ id }}), len({{ path }})))
{%- endmacro %}

{# One number for a row, and one for a set of different rows in any order. Compared only with numbers made
   by the same engine; after an upgrade that hashes differently every day is built again once. #}
{% macro fingerprint(expressions) -%}
    hash({{ expressions | join(', ') }})
{%- endmacro %}

{% macro fingerprint_of_all(number) -%}
    bit_xor({{ number }})
{%- endmacro %}

{# The clock on the wall of a zone at an instant; and the zones there are. #}
{% macro local_time(instant, zone) -%}
    ({{ instant }} at time zone {{ zone }})
{%- endmacro %}

{# The same in microseconds, as if the wall clock showed UTC. #}
{% macro wall_clock_micros(instant, zone) -%}
    epoch_us({{ local_time(instant, zone) }})
{%- endmacro %}

{% macro time_zone_names() -%}
    select name from pg_timezone_names()
{%- endmacro %}

{# The second of the UTC day, 0 to 86399, and the bit of the UTC weekday: Monday is 1, Sunday 64. #}
{% macro utc_second_of_day(instant) -%}
    cast(epoch_us({{ instant }}) // 1000000 % 86400 as bigint)
{%- endmacro %}

{% macro utc_weekday_bit(instant) -%}
    (1 << cast(isodow({{ instant }} at time zone 'UTC') - 1 as integer))
{%- endmacro %}

{# The first instant of a UTC day. #}
{% macro utc_midnight(day) -%}
    cast({{ day }} as timestamp) at time zone 'UTC'
{%- endmacro %}

{# An id of a row made of its key: the same on every engine and for ever. #}
{% macro id_of(parts) -%}
    md5(concat_ws('|', {{ parts | join(', ') }}))
{%- endmacro %}

{# The start of the quarter of an hour, in UTC, that holds an instant. #}
{% macro quarter_of(instant) -%}
    time_bucket(interval '15 minutes', {{ instant }}, timestamptz '2000-01-01 00:00:00+00')
{%- endmacro %}

{# An order by two values, the second deciding between equal firsts. #}
{% macro pair(first, second) -%}
    row({{ first }}, {{ second }})
{%- endmacro %}

{# Seconds from one instant to a later one, with their fraction. #}
{% macro seconds_between(earlier, later) -%}
    ((epoch_us({{ later }}) - epoch_us({{ earlier }})) * 1e-6)
{%- endmacro %}

{# An instant some seconds later. #}
{% macro seconds_after(instant, seconds) -%}
    ({{ instant }} + to_seconds({{ seconds }}))
{%- endmacro %}

{% macro start_of_hour(instant) -%}
    date_trunc('hour', {{ instant }})
{%- endmacro %}

{# The value that a share of all values does not exceed: one that was seen, never one between two. #}
{% macro quantile(value, fraction) -%}
    quantile_disc({{ value }}, {{ fraction }})
{%- endmacro %}

{# The ids of a path as one text, the top first. #}
{% macro path_text(path) -%}
    array_to_string(list_reverse({{ path }}), '/')
{%- endmacro %}

{# One row for each number from the first to the last, both included. #}
{% macro numbers_between(first, last) -%}
    unnest(range({{ first }}, {{ last }} + 1))
{%- endmacro %}

{# One row for each id of a text of ids. #}
{% macro each_of(text) -%}
    unnest(string_split({{ text }}, ','))
{%- endmacro %}

{# The first day of the day or month after the one that holds a day. #}
{% macro next_period(period, day) -%}
    cast(date_trunc({{ period }}, {{ day }}) + case {{ period }} when 'day' then interval 1 day else interval 1 month end as date)
{%- endmacro %}

{# Names with a star stand for all names that fit. #}
{% macro is_pattern(name) -%}
    contains({{ name }}, '*')
{%- endmacro %}

{% macro fits_pattern(name, pattern) -%}
    ({{ name }} glob {{ pattern }})
{%- endmacro %}
