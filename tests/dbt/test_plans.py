"""No model joins by trying every row with every row: the plans of all of them, as the engine would run them.

A condition on one side only, or a choice such as `x is null or y < x`, in the ON of an outer join makes a nested loop
of what looks like a join by keys: it costs the product of its inputs, and no test with few rows shows it.
"""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pipelines.contract.table import Keep, Table
from pipelines.contract.wire import TABLES
from pipelines.warehouse import landing, load
from tests.dbt.test_usage import TREE
from tests.warehouse import Warehouse
from tests.warehouse_part.batches import START, MemoryStore, batch, record, row

Node = dict[str, Any]
SAME = 400  # rows of each table; to multiply two of them gives more than the price book has

LOOPS = frozenset({"NESTED_LOOP_JOIN", "BLOCKWISE_NL_JOIN", "CROSS_PRODUCT"})
# Inputs that do not grow with usage. One side of a loop may be made of these alone: the loop then grows like the other.
SMALL_SCHEMAS = {
    "billing": "books, which people write", "operation": "alerts of the pipeline", "seeds": "files in the repository",
}  # fmt: skip
GROWING = {"closed_lines", "provider_costs", "restatements"}  # in those schemas
SMALL = {
    "dim_billing_accounts": "one row for each account and span of its terms",
    "int_billing__rates_in_force": "the price book",
    "dim_prices": "the price book",
    "dim_billing_periods": "one row for each account and month",
}


@pytest.mark.services
def test_no_model_has_a_loop_over_facts(warehouse: Warehouse) -> None:
    warehouse.load(TREE)
    built = warehouse.dbt("run")
    again = warehouse.dbt("compile")
    assert built.success
    assert again.success
    looked_at = {**_sql(built, "full refresh"), **_sql(again, "incremental")}
    assert len({name for name, _ in looked_at}) > 100
    with _planning(warehouse) as connection:
        found = [
            f"{name} ({how}): {loop}"
            for (name, how), sql in sorted(looked_at.items())
            for loop in loops(connection, sql)
        ]
    assert found == []


@pytest.mark.services
def test_rows_that_share_a_name_are_not_multiplied(warehouse: Warehouse) -> None:
    """A join by keys costs the product of its inputs where all of them have the same key: one tenant has everything in
    one session, another one the same name for everything. Each batch keeps to its contract."""
    store = MemoryStore()
    for tenant, own in (("one", _own_in_one_session), ("two", _own_session)):
        rows = {table.name: [row(table.name, n, **own(table, n)) for n in range(1, SAME + 1)] for table in TABLES}
        for seq, (name, content) in enumerate(rows.items(), 1):
            batch(store, {name: content}, tenant=tenant, seq=seq)
    with warehouse.connect() as connection:
        load.prepare(connection)
        assert load.load(connection, store, landing.pending(store, ())).quarantined == 0
    built = warehouse.dbt("run")
    assert built.success
    with warehouse.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        largest = {name: _largest(connection, sql) for (name, _), sql in _sql(built, "full refresh").items()}
    assert [name for name, rows in largest.items() if rows >= SAME * (SAME - 1) // 2] == []


@pytest.mark.services
def test_tools_that_few_sessions_used_are_paired_with_none(warehouse: Warehouse) -> None:
    """Three sessions may name as many tools as they like; those that more sessions used are paired all the same."""
    used = [(session, f"rare_{n:03}") for session in range(3) for n in range(500)]
    used += [(session, "often") for session in range(4)]
    calls = [
        {
            "record_id": f"{session} {tool}",
            "session_id": f"s{session}",
            "tool_name": tool,
            "origin": "event",
            "agent_role": "queen",
            "occurred_at": START,
        }
        for session, tool in used
    ]
    warehouse.load([("tool_calls", call) for call in calls])
    warehouse.run("--select", "+agg_tool_pairs")
    pairs = "from (from marts.agg_tool_pairs unpivot (tool for side in (first_tool_name, second_tool_name)))"
    assert warehouse.query(f"select count(distinct tool), bool_or(tool = 'often') {pairs}") == [(500, True)]


def test_a_build_spills_beside_the_warehouse_what_exceeds_its_limit(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APIARY_MEMORY_LIMIT", "512MiB")
    settings = "current_setting('memory_limit') as memory, current_setting('temp_directory') as folder"
    shown = warehouse.dbt("show", "--inline", f"select {settings}")
    assert shown.success
    (row,) = shown.result.results[0].agate_table.rows
    assert dict(row.dict()) == {"memory": "512.0 MiB", "folder": f"{warehouse.path}.tmp"}


def test_a_build_goes_on_after_it_has_spilled(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APIARY_MEMORY_LIMIT", "60MiB")
    ranked = "select row_number() over (order by md5(range::varchar)) as place, md5(range::varchar) as text"
    for _ in range(2):
        shown = warehouse.dbt("show", "--inline", f"select max(place), max(text) from ({ranked} from range(2000000))")
        assert shown.success, shown.exception
    assert Path(f"{warehouse.path}.tmp").exists()


@pytest.mark.parametrize(
    ("condition", "is_loop"),
    [
        ("facts.id = others.id", False),
        ("facts.id = others.id and facts.moment >= others.moment", False),
        ("facts.id = others.id and (others.moment is null or facts.moment >= others.moment)", True),
        ("facts.id = others.id and facts.kind = 'a'", True),
        ("facts.id + others.id > 3", True),
    ],
)
def test_the_test_sees_a_loop(condition: str, *, is_loop: bool) -> None:
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE facts AS SELECT range AS id, range AS moment, 'a' AS kind FROM range(10)")
        connection.execute("CREATE TABLE others AS FROM facts")
        connection.execute("CREATE SCHEMA billing")
        connection.execute("CREATE TABLE billing.book AS FROM facts")
        sql = "SELECT * FROM facts LEFT JOIN {} AS others ON " + condition
        assert bool(loops(connection, sql.format("others"))) is is_loop
        assert loops(connection, sql.format("billing.book")) == [], "a book does not grow with usage"
        assert loops(connection, sql.format("(SELECT max(id) AS id, max(moment) AS moment FROM others)")) == [], (
            "one row"
        )


def _own_in_one_session(table: Table, number: int) -> dict[str, Any]:
    """Names of its own for a row, but those of sessions."""
    named = [c for c in table.columns if c.keep in (Keep.ID, Keep.KEYED_HASH) and c.name not in load.SESSION_COLUMNS]
    return _places(table, number) | {
        c.name: f"k1_{record(f'{c.name} {number}')}" for c in named if c.name != "record_id"
    }


def _own_session(table: Table, number: int) -> dict[str, Any]:
    """A session of its own for a row, and no other name."""
    named = [name for name in load.SESSION_COLUMNS if name in table.by_name]
    return _places(table, number) | {name: f"k1_{record(f'{name} {number}')}" for name in named}


def _places(table: Table, number: int) -> dict[str, Any]:
    """Where and when a row was written, which no two rows of a log share."""
    places = [name for name in ("step_index", "source_line", "iteration") if name in table.by_name]
    times = [column.name for column in table.columns if column.type == "timestamp"]
    return dict.fromkeys(places, number) | dict.fromkeys(times, START + timedelta(minutes=number))


def _largest(connection: duckdb.DuckDBPyConnection, sql: str) -> int:
    """The most rows that a step of a query makes."""
    ((_, text),) = connection.execute(f"EXPLAIN (ANALYZE, FORMAT json) {sql}").fetchall()
    steps = [json.loads(text)]
    for step in steps:
        steps += step["children"]
    return max(int(step.get("operator_cardinality", 0)) for step in steps)


def loops(connection: duckdb.DuckDBPyConnection, sql: str) -> list[str]:
    """The loops of a query's plan both of whose inputs grow with facts, each with the tables on its sides."""
    ((_, text),) = connection.execute(f"EXPLAIN (FORMAT json) {sql}").fetchall()
    roots: list[Node] = json.loads(text)
    nodes = [node for root in roots for node in _walk(root)]
    ctes = {node["extra_info"].get("Table Index"): node["children"][0] for node in nodes if node["name"] == "CTE"}
    found = []
    for node in (node for node in nodes if node["name"] in LOOPS):
        sides = [sorted(_facts(child, ctes, frozenset())) for child in node["children"]]
        if all(sides):
            info = node["extra_info"]
            on = info.get("Condition") or info.get("Conditions")
            found.append(f"{node['name']} on {on} of {' and '.join(map(str, sides))}")
    return found


def _facts(node: Node, ctes: dict[Any, Node], seen: frozenset[Any]) -> set[str]:
    """The tables below that grow with facts; none below what makes one row of whatever it reads."""
    info = node["extra_info"]
    if node["name"] == "UNGROUPED_AGGREGATE" or (node["name"].endswith("LIMIT") and info.get("Limit") == "1"):
        return set()
    if "Table" in info:
        *_, schema, name = str(info["Table"]).split(".")
        is_small = name in SMALL or (schema in SMALL_SCHEMAS and name not in GROWING)
        return set() if is_small else {name}
    if node["name"] == "CTE_SCAN":
        index = info.get("CTE Index")
        return _facts(ctes[index], ctes, seen | {index}) if index in ctes and index not in seen else set()
    return {name for child in node["children"] for name in _facts(child, ctes, seen)}


def _walk(node: Node) -> Iterator[Node]:
    node["name"] = node["name"].strip()
    yield node
    for child in node["children"]:
        yield from _walk(child)


def _sql(result: Any, how: str) -> dict[tuple[str, str], str]:
    return {
        (item.node.name, how): item.node.compiled_code
        for item in result.result.results
        if item.node.resource_type == "model"
    }


def _planning(warehouse: Warehouse) -> duckdb.DuckDBPyConnection:
    """The warehouse, planned as if every table were large: few rows would be joined by loops, and none not at all."""
    connection = warehouse.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET nested_loop_join_threshold = 0")
    connection.execute("SET asof_loop_join_threshold = 0")
    connection.execute("SET disabled_optimizers = 'statistics_propagation'")
    return connection
