"""Where engines differ: engine.sql and the translation, and nowhere else.

Does not belong here: whether Spark says the same (bench/scale).
"""

import re
from pathlib import Path

import pytest
import sqlglot
from sqlglot import exp

from pipelines.spark import dialect

REPOSITORY = Path(__file__).resolve().parents[2]
ENGINE = REPOSITORY / "dbt_project" / "macros" / "engine.sql"
# How tables are written: of DuckDB alone, as the adapter of Spark has its own.
OF_DUCKDB = {"materializations.sql", "replace_changed.sql"}
MACRO = re.compile(r"\{%-? *macro (\w+)\(([^)]*)\)")

# Functions that mean the same in DuckDB and, as sqlglot writes them, in Spark.
STANDARD = frozenset([
    "abs", "any_value", "bit_xor", "bool_and", "bool_or", "ceil", "coalesce", "concat", "concat_ws", "contains",
    "count", "date_diff", "date_trunc", "dense_rank", "first_value", "floor", "generate_series", "greatest",
    "grouping", "lag", "last_value", "lead", "least", "max", "max_by", "md5", "min", "min_by", "nullif", "pow",
    "regexp_replace", "replace", "round", "row_number", "rtrim", "sign", "split_part", "sqrt", "starts_with",
    "strftime", "sum", "unnest",
])  # fmt: skip
# Words of SQL, and types with digits, before a parenthesis.
SYNTAX = frozenset([
    "all", "and", "as", "between", "by", "case", "cast", "decimal", "distinct", "else", "end", "except",
    "exclude", "exists", "filter", "from", "grouping", "having", "in", "interval", "is", "join", "lateral",
    "like", "materialized", "not", "on", "or", "order", "over", "partition", "select", "sets", "then", "union",
    "using", "values", "when", "where", "window", "with", "timestamp",
])  # fmt: skip
# Words of dbt and of Jinja.
JINJA = frozenset([
    "config", "ref", "source", "var", "is_incremental", "return", "set", "get", "env_var", "statement",
    "append", "extend", "get_quoted_csv", "raise_compiler_error", "join", "items", "map", "list", "replace",
    "trim", "dispatch", "render_target_identifier",
])  # fmt: skip


def own_text(path: Path) -> str:
    """A file without comments."""
    return re.sub(r"\{#.*?#\}|--[^\n]*", " ", path.read_text("utf-8"), flags=re.DOTALL)


def sql_files() -> list[Path]:
    folders = ("models", "dbt_project/macros", "dbt_project/tests")
    found = [path for folder in folders for path in sorted((REPOSITORY / folder).rglob("*.sql"))]
    return [path for path in found if path != ENGINE and path.name not in OF_DUCKDB]


def macros() -> set[str]:
    texts = [path.read_text("utf-8") for path in (REPOSITORY / "dbt_project").rglob("*.sql")]
    return {name for text in texts for name, _ in MACRO.findall(text) if "__" not in name} | {
        name for text in texts for name in re.findall(r"\{% test (\w+)\(", text)
    }


def called(text: str) -> set[str]:
    """Names before a parenthesis, in small letters; common table expressions and windows are named after it."""
    defined = {name.lower() for name in re.findall(r"\b(\w+)(?: \([\w, ]+\))? as (?:not )?(?:materialized )?\(", text)}
    series = {name.lower() for name in re.findall(r"\bas (\w+) ?\(", text)}
    names = {name.lower() for name in re.findall(r"(?<![\w.])([A-Za-z_]\w*) ?\(", text)}
    return names - defined - series


def test_models_call_what_both_engines_know_or_an_engine_macro():
    known = STANDARD | SYNTAX | JINJA | macros()
    foreign = {
        path.relative_to(REPOSITORY).as_posix(): sorted(called(own_text(path)) - known)
        for path in sql_files()
        if called(own_text(path)) - known
    }
    assert foreign == {}, "call a macro of dbt_project/macros/engine.sql"


def test_a_function_of_one_engine_is_found(tmp_path):
    path = tmp_path / "model.sql"
    path.write_text("with t as (select 1)\nselect epoch_us(at), {{ utc_date('list_slice(x)') }} from t -- hash(x)")
    assert called(own_text(path)) - STANDARD - SYNTAX - JINJA - macros() == {"epoch_us", "list_slice"}


def test_each_engine_has_every_macro_that_is_dispatched():
    text = ENGINE.read_text("utf-8")
    arguments = {name: re.sub(r"=[^,]+", "", given) for name, given in MACRO.findall(text)}
    dispatched = re.findall(r"adapter\.dispatch\('(\w+)'\)", text)
    assert len(dispatched) >= 25
    assert {name for name in arguments if "__" in name} == {
        f"{engine}__{name}" for name in dispatched for engine in ("duckdb", "spark")
    }
    for name in dispatched:
        assert arguments[name] == arguments[f"duckdb__{name}"] == arguments[f"spark__{name}"], name


@pytest.fixture(scope="module")
def duckdb_only() -> set[str]:
    """Functions that the `duckdb__` macros call."""
    text = re.sub(r"\{#.*?#\}", "", ENGINE.read_text("utf-8"), flags=re.DOTALL)
    bodies = re.findall(r"\{% macro duckdb__\w+\(.*?\{%- endmacro %\}", text, flags=re.DOTALL)
    return {name.lower() for body in bodies for name in re.findall(r"(?<![\w.])(\w+) ?\(", body)}


@pytest.mark.services
def test_every_compiled_model_is_translated(warehouse, duckdb_only):
    result = warehouse.dbt("compile", "--select", "resource_type:model", "resource_type:test", "--full-refresh")
    assert result.success, result.exception
    compiled = {r.node.name: r.node.compiled_code for r in result.result if r.node.compiled_code}
    assert len(compiled) > 400
    unknown: dict[str, set[str]] = {}
    for name, sql in compiled.items():
        assert dialect.to_spark(sql), name
        tree = sqlglot.parse_one(sql, read="duckdb")
        found = {call.name.lower() for call in tree.find_all(exp.Anonymous)} - STANDARD - duckdb_only
        if found:
            unknown[name] = found
    assert unknown == {}


# the translation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("duckdb", "spark"),
    [
        (
            "select sum(x) filter (where y > 1) over (partition by z) from t",
            "SELECT SUM(CASE WHEN y > 1 THEN x END) OVER (PARTITION BY z) FROM t",
        ),
        (
            "select count(*) filter (where y) over w from t window w as (partition by z)",
            "SELECT COUNT(CASE WHEN y THEN 1 END) OVER w FROM t WINDOW w AS (PARTITION BY z)",
        ),
        ("select sum(x) filter (where y) from t", "SELECT SUM(x) FILTER(WHERE y) FROM t"),
        ("select cast(x as hugeint) from t", "SELECT CAST(x AS DECIMAL(38, 0)) FROM t"),
        ("select x // 2 from t", "SELECT x DIV 2 FROM t"),
    ],
)
def test_rules(duckdb, spark):
    assert dialect.to_spark(duckdb) == spark


def test_a_named_window_with_a_frame_gives_lag_its_partition_and_order_alone():
    translated = dialect.to_spark(
        "select lag(x) over w, sum(x) over w from t"
        " window w as (partition by a order by b rows between unbounded preceding and current row)"
    )
    assert "LAG(x) OVER (PARTITION BY a ORDER BY b NULLS LAST)" in translated
    assert "SUM(x) OVER w" in translated


def test_a_contract_gives_every_column_its_type_by_name():
    query = dialect.with_types("select 1 as a, 2 as b", {"b": "varchar", "a": "timestamp with time zone"})
    assert re.sub(r"\s+", " ", query) == (
        "select cast(`b` as STRING) as `b`, cast(`a` as TIMESTAMP) as `a` from ( select 1 as a, 2 as b ) as model"
    )


def test_a_star_that_replaces_leaves_the_column_out_and_adds_it():
    assert dialect.to_spark("select t.* replace (x + 1 as x), y from s.t") == (
        "SELECT t.* EXCEPT (x), x + 1 AS x, y FROM s.t"
    )


DOUBLING = "a0 as (select * from s.t)" + "".join(
    f", a{n} as (select l.* from a{n - 1} as l join a{n - 1} as r on l.x = r.x)" for n in range(1, 7)
)


def test_what_would_be_written_out_many_times_becomes_tables():
    parts = dialect.in_parts(f"with {DOUBLING} select * from a6 where x in (select a0.x from a0)", "s.m__")
    assert [part.table for part in parts] == ["s.m__a0", "s.m__a1", "s.m__a2", "s.m__a3", "s.m__a4", "s.m__a5", ""]
    assert parts[1].query == "SELECT l.* FROM s.m__a0 AS l JOIN s.m__a0 AS r ON l.x = r.x"
    assert parts[-1].query == (
        "WITH a6 AS (SELECT l.* FROM s.m__a5 AS l JOIN s.m__a5 AS r ON l.x = r.x)"
        " SELECT * FROM a6 WHERE x IN (SELECT a0.x FROM s.m__a0 AS a0)"
    )


def test_a_query_that_reads_little_stays_one():
    sql = "with a as (select * from s.t) select l.x from a as l join a as r on l.x = r.x"
    assert [part.table for part in dialect.in_parts(sql, "s.m__")] == [""]


def test_a_recursion_with_a_window_is_run_step_by_step():
    sql = (
        "with recursive first as (select x from s.t), walk as (select x, 0 as n from first union all"
        " select sum(walk.x) over (order by walk.n) as x, walk.n + 1 as n from walk where walk.n < 5)"
        " select * from walk"
    )
    beginning, whole = dialect.in_parts(sql, "s.m__")
    assert (beginning.table, whole.table) == ("s.m__walk", "")
    assert beginning.query.endswith("SELECT x, 0 AS n FROM first")
    assert "FROM s.m__walk__last AS walk WHERE walk.n < 5" in beginning.step
    assert whole.query == "SELECT * FROM s.m__walk AS walk"


def test_what_is_no_sql_is_refused():
    with pytest.raises(sqlglot.errors.SqlglotError):
        dialect.to_spark("select from where")
