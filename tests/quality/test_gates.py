"""Gates hold: every suite runs on any warehouse, passes a sound one, and each of its expectations can fail."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import duckdb
import pytest
import yaml

from pipelines.contract.ddl import BOOKS
from pipelines.contract.wire import BY_NAME
from pipelines.quality import gates
from pipelines.quality.gates import Edge, Suite
from pipelines.warehouse import load
from tests import marts
from tests.warehouse import REPOSITORY, Warehouse
from tests.warehouse_part.batches import CLONE, START, MemoryStore, batch, row, turn

pytestmark = pytest.mark.services

EDGES: tuple[Edge, ...] = ("arrival", "billing", "departure")
SUITES = {suite.name: suite for edge in EDGES for suite in gates.suites(edge)}
EXPECTATIONS = [
    pytest.param(suite, number, id=f"{suite.name}-{expectation['kwargs']['column']}")
    for suite in SUITES.values()
    for number, expectation in enumerate(suite.expectations)
]
SOUND = {"expect_column_values_to_be_between": "0", "expect_column_values_to_be_in_set": "false"}


def failed(suite: Suite, connection: duckdb.DuckDBPyConnection) -> set[str]:
    return {result.column for result in gates.run(suite, connection) if not result.passed}


# what is written down -------------------------------------------------------------------------------------------------


def test_every_file_is_a_suite() -> None:
    assert set(SUITES) == {path.stem for path in (REPOSITORY / "expectations").iterdir()}
    for name, suite in SUITES.items():
        schema, known = ("wire", {*BY_NAME, *BOOKS}) if suite.edge == "arrival" else ("marts", marts.columns())
        assert name == f"{schema}__{suite.table}"
        assert suite.table in known
        assert suite.description.strip()
        assert suite.expectations
        assert re.search(rf"\b{schema}\.{suite.table}\b", suite.query), f"{name} does not look at what it guards"


@pytest.mark.parametrize(("suite", "number"), EXPECTATIONS)
def test_every_expectation_says_what_why_and_how_bad(suite: Suite, number: int) -> None:
    expectation = suite.expectations[number]
    assert set(expectation) == {"type", "kwargs", "severity", "notes"}
    assert expectation["severity"] in ("critical", "warning"), "a misspelt severity would stop nothing"
    assert expectation["notes"].strip()
    assert expectation["type"] in SOUND
    bounds = expectation["kwargs"]
    assert set(bounds) in ({"column", "min_value", "max_value"}, {"column", "value_set"}), "an open bound lets all pass"


def test_no_expectation_is_there_twice() -> None:
    for suite in SUITES.values():
        columns = [expectation["kwargs"]["column"] for expectation in suite.expectations]
        assert len(columns) == len(set(columns)), suite.name


# judging --------------------------------------------------------------------------------------------------------------


def one_row(suite: Suite, **given: str) -> Suite:
    """The suite over a frame that is sound but for some columns."""
    sound = {e["kwargs"]["column"]: SOUND[e["type"]] for e in suite.expectations}
    whose = {} if suite.group_by is None else {suite.group_by: "'acct'"}
    cells = ", ".join(f"{value} AS {name}" for name, value in (sound | whose | given).items())
    return replace(suite, query=f"SELECT {cells}")


@pytest.mark.parametrize(("suite", "number"), EXPECTATIONS)
def test_each_expectation_fails_for_its_own_column(suite: Suite, number: int) -> None:
    expectation = suite.expectations[number]
    column, bounds = expectation["kwargs"]["column"], expectation["kwargs"]
    if "value_set" in bounds:
        faults = ["true"]
    else:
        faults = [f"{bounds['max_value']} + CAST('0.00000000000000000001' AS DECIMAL(38, 20))"]
        faults = faults if bounds["max_value"] == 0 else ["CAST(1e30 AS HUGEINT)"]
        faults.append(f"{bounds['min_value']} - 1")
    with duckdb.connect() as connection:
        for fault in faults:
            results = gates.run(one_row(suite, **{column: fault}), connection)
            (found,) = [result for result in results if not result.passed]
            assert found.column == column, fault
            assert found.is_critical == (expectation["severity"] == "critical")
            assert found.notes == expectation["notes"]
            assert found.found


@pytest.mark.parametrize("suite", SUITES.values(), ids=SUITES)
def test_a_sound_frame_passes_and_one_without_answers_does_not(suite: Suite) -> None:
    everything = {expectation["kwargs"]["column"] for expectation in suite.expectations}
    with duckdb.connect() as connection:
        empty = one_row(suite)
        assert failed(empty, connection) == set()
        assert failed(replace(empty, query=f"{empty.query} WHERE false"), connection) == everything
        assert failed(one_row(suite, **dict.fromkeys(everything, "NULL")), connection) == everything


def test_one_bad_row_among_good_ones_fails() -> None:
    suite = SUITES["wire__batches"]
    sound = one_row(suite)
    bad = one_row(suite, unaccounted="1")
    with duckdb.connect() as connection:
        assert failed(replace(suite, query=f"{sound.query} UNION ALL {bad.query}"), connection) == {"unaccounted"}


def test_a_suite_names_its_edge(tmp_path: Path) -> None:
    content = yaml.safe_load((REPOSITORY / "expectations" / "wire__batches.yml").read_text())
    (tmp_path / "wire__batches.yml").write_text(yaml.safe_dump(content))
    assert [suite.name for suite in gates.suites("arrival", tmp_path)] == ["wire__batches"]
    with pytest.raises(FileNotFoundError, match="no suite of the departure gate"):
        gates.suites("departure", tmp_path)


# on a warehouse -------------------------------------------------------------------------------------------------------


def billed(**given: object) -> str:
    """A statement that adds one sound row to the cost export, but for the columns that are given."""
    month = {"BillingPeriodStart": "2026-03-01", "BillingPeriodEnd": "2026-04-01"}
    days = {"ChargePeriodStart": "2026-03-01", "ChargePeriodEnd": "2026-03-02", "usage_date": "2026-03-01"}
    numbers = dict.fromkeys(("BilledCost", "ContractedCost", "EffectiveCost", "ListCost", "x_EventCount"), 1)
    prices = {"PricingQuantity": 1, "ListUnitPrice": 1, "ContractedUnitPrice": 1, "_booking_seq": 1}
    words = (
        "BillingAccountId", "BillingCurrency", "ChargeFrequency", "HostProviderName", "InvoiceDetailId", "InvoiceId",
        "InvoiceIssuerName", "ServiceCategory", "ServiceName", "ServiceProviderName", "ServiceSubcategory",
        "x_IncurredPeriod", "x_RowKey", "x_TenantId", "x_TrustGrade", "tenant_id",
    )  # fmt: skip
    row = month | days | numbers | prices | dict.fromkeys(words, "x") | {"billing_period": "2026-03-01"}
    cells = {**row, "ChargeCategory": "Usage", **given}
    text = ", ".join(f"{value!r} AS {name}" for name, value in cells.items())
    return f"INSERT INTO marts.export_focus_daily BY NAME SELECT {text}"


PLANTED = {
    ("wire__batches", "unaccounted"): "UPDATE wire.batches SET status = 'lost'",
    ("wire__batches", "rows_unaccounted"): "UPDATE wire.batches SET rows_new = rows_new - 1 WHERE rows_in > 0",
    ("wire__batches", "quarantined"): "UPDATE wire.batches SET status = 'quarantined', reason = 'x'",
    ("wire__batches", "quarantined_without_reason"): "UPDATE wire.batches SET status = 'quarantined', reason = NULL",
    ("wire__conflicts", "are_many"): "INSERT INTO wire.conflicts (table_name) SELECT 'x' FROM range(2)",
    **{
        ("wire__object_findings", finding): f"INSERT INTO wire.object_findings (finding) VALUES ('{finding}')"
        for finding in ("changed", "missing", "written_again")
    },
    ("wire__llm_turns", "doubled"): "INSERT INTO wire.llm_turns SELECT * FROM wire.llm_turns",
    ("wire__llm_turns", "free"): "UPDATE wire.llm_turns SET reported_cost_usd = 0",
    ("wire__llm_turns", "cache_above_input"): "UPDATE wire.llm_turns SET cache_write_input_tokens = input_tokens",
    ("wire__llm_turns", "from_the_future"): "UPDATE wire.llm_turns SET occurred_at = _received_at + INTERVAL 16 MINUTE",
    ("wire__llm_turns", "undated"): "UPDATE wire.llm_turns SET occurred_at = NULL",
    ("wire__llm_turns", "most_input_tokens"): "UPDATE wire.llm_turns SET input_tokens = 100000001",
    ("marts__fct_llm_turns", "turns_off"): "DELETE FROM marts.fct_llm_turns WHERE turn_source = 'step'",
    ("marts__fct_llm_turns", "input_tokens_off"):
        "UPDATE marts.fct_llm_turns SET reported_input_tokens = input_tokens + 1",
    ("marts__fct_llm_turns", "output_tokens_off"): "UPDATE wire.llm_turns SET output_tokens = output_tokens + 1",
    ("marts__fct_llm_turns", "cost_off"):
        "UPDATE wire.llm_turns SET reported_cost_usd = reported_cost_usd + '0.00000000000000000001'::DECIMAL(38, 20)",
    ("marts__agg_erased_usage_daily", "kept_off"): "INSERT INTO wire.kept_charges (quantity) VALUES (1)",
    ("marts__agg_erased_usage_daily", "unreported_off"): "INSERT INTO wire.kept_charges (unpriced_turns) VALUES (1)",
    ("marts__export_focus_daily", "cost_off"):
        "UPDATE marts.fct_rated_lines SET billed_cost = 1, billing_account_id = 'a'",
    ("marts__export_focus_daily", "tokens_off"):
        "UPDATE marts.fct_rated_lines SET billed_cost = 0, quantity = 1, billing_account_id = 'a'",
    ("marts__export_focus_daily", "rows_twice"): f"{billed()}; {billed()}",
    ("marts__export_focus_daily", "identities_broken"): billed(ListUnitPrice=2),
    ("marts__export_focus_daily", "mixed_currencies"): f"{billed()}; {billed(BillingCurrency='EUR')}",
    ("marts__export_focus_daily", "negative_usage"): billed(BilledCost=-1),
    ("marts__export_focus_daily", "misplaced"): billed(ChargePeriodStart="2026-02-28"),
    **{
        (f"marts__agg_usage_{subject}_daily", column): f"UPDATE marts.agg_usage_{subject}_daily SET {change}"
        for subject in ("session", "colony", "model", "tenant")
        for column, change in (
            ("turns_off", "turns = turns + 1"), ("tokens_off", "output_tokens = output_tokens - 1"),
            ("tool_calls_off", "tool_calls = tool_calls + 1"),
            ("cost_off", "reported_cost_usd = reported_cost_usd + '0.00000000000000000001'::DECIMAL(38, 20)"),
        )
    },
}  # fmt: skip


def arrived(connection: duckdb.DuckDBPyConnection) -> None:
    """A small fleet: turns by events and by steps, tool calls, copies, an unreported cost."""
    store = MemoryStore()
    seen = {"occurred_at": START - timedelta(hours=1), "input_tokens": 10}
    tables = {
        "llm_turns": [turn(1, **seen), turn(2, **seen, reported_cost_usd=None), turn(3, **seen)],
        "node_steps": [row("node_steps", 1, step_index=0), row("node_steps", 2, step_index=-1)],
        "tool_calls": [row("tool_calls", 1, origin="event"), row("tool_calls", 2, origin="step")],
        "sessions": [row("sessions", 1)],
    }
    arrivals = [batch(store, tables), batch(store, tables, device=CLONE, minute=1), batch(store, {}, seq=2, minute=2)]
    load.prepare(connection)
    loaded = load.load(connection, store, arrivals)
    assert (loaded.loaded, loaded.quarantined, loaded.rows_conflict) == (3, 0, 0)


def test_sound_warehouses_pass_and_every_planted_fault_is_found(warehouse: Warehouse) -> None:
    """One after the other: building marts is what takes the time."""
    with warehouse.connect() as connection:
        load.prepare(connection)
    warehouse.run()
    assert all_failed(warehouse) == {}, "an empty warehouse is a sound one"
    with warehouse.connect() as connection:
        arrived(connection)
    warehouse.run()
    assert all_failed(warehouse) == {}
    with warehouse.connect() as connection:
        for (name, column), fault in PLANTED.items():
            with planted(connection, fault):
                assert column in failed(SUITES[name], connection), (name, column)


def test_a_fault_is_planted_for_every_expectation() -> None:
    every = {(name, e["kwargs"]["column"]) for name, suite in SUITES.items() for e in suite.expectations}
    assert PLANTED.keys() == every


def all_failed(warehouse: Warehouse) -> dict[str, set[str]]:
    """Failures by suite; also that each expectation is about a column that the query gives."""
    found = {}
    with warehouse.connect() as connection:
        for name, suite in SUITES.items():
            columns = set(connection.sql(suite.query).columns)
            assert {expectation["kwargs"]["column"] for expectation in suite.expectations} <= columns, name
            if bad := failed(suite, connection):
                found[name] = bad
    return found


@contextmanager
def planted(connection: duckdb.DuckDBPyConnection, fault: str) -> Iterator[None]:
    """A fault for as long as the block lasts."""
    connection.execute("BEGIN")
    try:
        assert connection.execute(fault).fetchall() != [(0,)], f"nothing was changed: {fault}"
        yield
    finally:
        connection.execute("ROLLBACK")
