"""Each macro of engine.sql says on Spark what it says on DuckDB, of values where engines differ: `make test-engines`.

Does not belong here: whole models (test_small.py), and with them `walk_up`, which is half of a query.
"""

import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import duckdb
import jinja2
import pytest
from dbt.context.base import get_context_modules

from bench.scale import __main__ as scale
from pipelines.engine import Engine
from pipelines.spark import dialect
from tests.dbt.test_engines import ENGINE

Engines = tuple[duckdb.DuckDBPyConnection, Any]
# Before 1970, a microsecond before midnight, both changes of the clock, a Sunday and a Monday, a leap day.
INSTANTS = """(TIMESTAMPTZ '1969-12-31 23:59:59.999999+00'), ('1970-01-01 00:00:00+00'), ('2026-03-29 00:59:59.5+00'),
    ('2026-03-29 01:00:00+00'), ('2026-10-25 00:30:00+00'), ('2026-11-29 23:59:59.999999+00'),
    ('2026-11-30 00:00:00+00'), ('2024-02-29 12:07:30.25+00'), (NULL)"""
SPANS = """(DATE '2026-01-31', DATE '2026-03-01', 0, 3), ('2024-02-28', '2024-03-01', -2, 2),
    ('2026-12-31', '2026-12-31', 5, 5), ('2026-05-02', '2026-05-01', 3, 2), ('2026-05-04', '2026-05-01', 3, -7),
    (NULL, '2026-05-01', NULL, 2), ('2026-05-01', NULL, 2, NULL)"""
# Of each group the first and the last value are NULL, or all; positions are the same, or NULL in part.
GROUPS = """('a', NULL::DECIMAL(38, 15), NULL::DOUBLE, NULL, 9, 'p'), ('a', 1.5, 1.5, 'x', 2, 'p'),
    ('a', 0.5, 0.5, 'y', 1, 'r'), ('a', 2.5, 2.5, 'x', NULL, 's'), ('a', NULL, NULL, NULL, 0, 'q'),
    ('b', -0.5, -0.5, 'x', 7, NULL), ('b', -1.5, -1.5, 'w', 7, 'a'), ('b', 0, 0, 'v', 7, 'b'),
    ('c', NULL, NULL, NULL, 1, 'a'), ('d', 0.1, 0.1, 'x', NULL, NULL),
    ('d', 12345678901234567890123.123456789012345, 1e15 + 0.5, 'u', NULL, 'z')"""
TEXTS = r"""('claude-opus-4-6', 'claude-*', '7'), ('claude_opus', 'claude-opus', '7,8'), ('gpt%5', 'gpt%*', ''),
    ('gpt-5', 'gpt%*', ',9'), ('a_b', 'a*b', '1,,2'), ('a-b', 'a_b', '1'), ('a!b', 'a!b', NULL),
    ('A', 'a*', '1'), ('', '*', ' 1, 2'), ('say "é\n"', '*"*', '1'), (NULL, '*', '1'), ('x', NULL, '1')"""
TABLES = {
    "instants (instant)": INSTANTS,
    "zones (zone)": "('UTC'), ('Europe/Berlin'), ('America/New_York'), ('Asia/Kolkata'), ('Asia/Nowhere'), (NULL)",
    "seconds (seconds, whole)": "(0::DOUBLE, 0::BIGINT), (0.5, 1), (-1.25, -3600), (1209600, 1209600), (1e-6, NULL)",
    "spans (first_day, last_day, first, last)": SPANS,
    "groups (name, amount, number, text, position, second)": GROUPS,
    "paths (path, id)": "(['a'], 'a'), (['c', 'b', 'a'], 'b'), (['a', 'z', 'k'], 'z'), (['b', 'a'], 'a')",
    "texts (name, pattern, ids)": TEXTS,
    "quotients (dividend, divisor)": """(9999999999999999999999999999::DECIMAL(38, 0), 7::BIGINT), (-7, 2), (7, 2),
        (6, 2), (0, 5), (5, 0), (NULL, 3), (123456789012345678901234567890, 1000)""",
}
# A macro, what it is given, and the query in which it stands as `{}`.
OF_GROUP = "name, {} AS found FROM groups GROUP BY name"
IN_ZONES = "n, zone, {} AS found FROM instants CROSS JOIN (SELECT zone FROM zones WHERE zone <> 'Asia/Nowhere') AS real"
CASES: list[tuple[str, tuple[Any, ...], str]] = [
    ("utc_date", ("instant",), "n, {} AS found FROM instants"),
    ("to_micros", ("instant",), "n, {} AS found FROM instants"),
    ("from_micros", ("n * 1234567890123 - 5000000000000",), "n, {} AS found FROM instants"),
    *(("latest", (value, "n"), OF_GROUP) for value in ("text", "amount")),
    *(("earliest", (value, "n"), OF_GROUP) for value in ("text", "amount")),
    *(("pair", ("position", "second"), f"name, {by}(n, {{}}) AS found FROM groups GROUP BY name")
      for by in ("max_by", "min_by")),
    ("path_with", ("path", "'a'"), "id, {} AS found FROM paths"),
    *(("path_holds", ("path", f"'{member}'"), "id, {} AS found FROM paths") for member in "aby"),
    ("path_of_all", ("text",), "name, array_to_string(list_sort({}), '/') AS found FROM groups GROUP BY name"),
    ("path_steps", ("path", "id"), "id, {} AS found FROM paths"),
    ("path_minimum_from", ("path", "id"), "id, {} AS found FROM paths"),
    ("path_text", ("path",), "id, {} AS found FROM paths"),
    ("wall_clock_micros", ("instant", "zone"), IN_ZONES),
    ("time_zone_names", (), "zone FROM zones WHERE zone IN ({})"),
    ("utc_weekday_bit", ("instant",), "n, {} AS found FROM instants"),
    ("utc_midnight", ("first_day",), "n, {} AS found FROM spans"),
    *(("bucket_of", ("instant", minutes), "n, {} AS found FROM instants") for minutes in (1, 15, 60, 1440)),
    *(("seconds_after", ("instant", seconds), f"i.n, {seconds}, {{}} AS found FROM instants AS i CROSS JOIN seconds")
      for seconds in ("seconds", "whole", "86400 * 14")),
    ("days_between", ("first_day", "last_day"), "n, {} AS found FROM spans"),
    *(("quantile", (value, share), OF_GROUP)
      for value in ("amount", "number") for share in ("0.1", "0.5", "0.95", "0.99")),
    ("quantile", ("amount", "0.5", "position > 1"), OF_GROUP),
    ("numbers_between", ("first", "last"), "n, {} AS found FROM spans"),
    ("dates_between", ("first_day", "last_day"), "n, {} AS found FROM spans"),
    ("each_of", ("ids",), "n, {} AS found FROM texts"),
    *(("next_period", (f"'{period}'", "first_day"), "n, {} AS found FROM spans") for period in ("day", "month")),
    ("fits_pattern", ("name", "pattern"), "n, {} AS found FROM texts"),
    ("nearest_integer", ("number",), "n, {} AS found FROM groups"),
    ("whole_quotient", ("cast(dividend AS hugeint)", "divisor"), "n, {} AS found FROM quotients"),
    ("json_object_of", ({"x_A": "name", "x_B": "n", "x_C": "pattern"},), "n, {} AS found FROM texts"),
    # An engine's fingerprints are its own: which rows they tell apart is what they say.
    ("fingerprint", (["text", "second"],), """count(DISTINCT {}) AS found
        FROM (SELECT text, second FROM groups UNION ALL SELECT second, text FROM groups) AS turned"""),
]  # fmt: skip


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    """The tables on DuckDB, and Spark's session in which they are views."""
    if reason := scale.missing(Engine.SPARK):
        pytest.skip(reason)
    pytest.importorskip("pyspark", reason="Spark is not installed: make test-engines makes its environment")
    from bench.scale.spark_build import session

    folder = tmp_path_factory.mktemp("macros")
    spark = session("local[1]", folder)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for table, rows in TABLES.items():
            name = table.split()[0]
            connection.execute(
                f"CREATE TABLE {name} AS SELECT row_number() OVER () AS n, * FROM (VALUES {rows}) AS {table}"
            )
            connection.execute(f"COPY {name} TO '{folder / name}.parquet'")
            spark.read.parquet(str(folder / f"{name}.parquet")).createOrReplaceTempView(name)
        yield connection, spark
    spark.stop()


def macros_of(engine: str) -> Any:
    """The macros as dbt renders them for an engine."""
    found = SimpleNamespace()
    adapter = SimpleNamespace(dispatch=lambda name: getattr(found.macros, f"{engine}__{name}"))
    template = jinja2.Environment().from_string(ENGINE.read_text("utf-8"))
    found.macros = template.make_module({"adapter": adapter, "modules": get_context_modules()})
    return found.macros


@pytest.mark.scale
@pytest.mark.parametrize(
    ("macro", "given", "query"), CASES, ids=[f"{case[0]}-{number}" for number, case in enumerate(CASES)]
)
def test_a_macro_says_the_same_on_both(engines: Engines, macro: str, given: tuple[Any, ...], query: str) -> None:
    connection, spark = engines
    of_duckdb, of_spark = (
        "SELECT " + query.format(getattr(macros_of(engine), macro)(*given)) for engine in ("duckdb", "spark")
    )
    connection.register("told", spark.sql(dialect.to_spark(of_spark)).toArrow())
    ours, theirs = (connection.execute(f"FROM {rows} ORDER BY ALL").fetchall() for rows in (f"({of_duckdb})", "told"))
    assert theirs == ours != []


def test_every_macro_has_its_values() -> None:
    called = {macro for macro, *_ in CASES} | {"local_time", "walk_up"}  # inside wall_clock_micros; in test_small.py
    assert set(re.findall(r"adapter\.dispatch\('(\w+)'\)", ENGINE.read_text("utf-8"))) == called - {"wall_clock_micros"}
