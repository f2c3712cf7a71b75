"""Blocks: rows in columns come back as they were, also those that an earlier version wrote."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.contract import wire
from pipelines.contract.wire import Table
from pipelines.device.blocks import pack, rows_in, split, without
from pipelines.device.spool import to_parquet
from tests.warehouse_part.batches import row

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "int64": st.integers(-(2**63), 2**63 - 1),
    "bool": st.booleans(),
    "double": st.floats(allow_nan=False),
    "timestamp": st.datetimes(datetime(1970, 1, 1), datetime(2199, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    "decimal": st.decimals(0, 10**9, places=20),
    "string": st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
}


@st.composite
def some_rows(draw: st.DrawFn) -> tuple[str, list[dict[str, Any]]]:
    table = draw(st.sampled_from(wire.TABLES))
    columns = {column.name: st.none() | VALUES[column.type] for column in table.columns}
    return table.name, draw(st.lists(st.fixed_dictionaries(columns | {"record_id": st.text("0123456789abcdef")})))


def held(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if value is not None} for row in rows]


@settings(deadline=None)
@given(some_rows())
def test_rows_come_back_as_they_were(made: tuple[str, list[dict[str, Any]]]) -> None:
    table, rows = made
    assert held(rows_in(pack(table, rows))) == held(rows)


@settings(deadline=None)
@given(some_rows(), st.data())
def test_what_is_taken_out_and_what_is_left_are_the_rows(
    made: tuple[str, list[dict[str, Any]]], data: st.DataObject
) -> None:
    table, rows = made
    taken = set(data.draw(st.lists(st.sampled_from([row["record_id"] for row in rows])))) if rows else set()
    left, found = without(table, pack(table, rows), taken)
    assert held(found) == held([row for row in rows if row["record_id"] in taken])
    assert held(rows_in(left) if left else []) == held([row for row in rows if row["record_id"] not in taken])


def test_a_block_is_split_where_it_is_asked_to_be() -> None:
    rows = [row("llm_turns", number) for number in range(5)]
    head, tail = split(pack("llm_turns", rows), 2)
    assert held(rows_in(head)) == held(rows[:2])
    assert held(rows_in(tail)) == held(rows[2:])


def test_values_that_were_kept_as_json_get_their_types() -> None:
    told = {"record_id": "a", "occurred_at": "2026-05-04 10:15:30.5+00:00", "reported_cost_usd": "0.5"}
    (found,) = rows_in(pack("llm_turns", [told]))
    assert found["occurred_at"] == datetime(2026, 5, 4, 10, 15, 30, 500_000, tzinfo=UTC)
    assert found["reported_cost_usd"] == Decimal("0.5")


@pytest.mark.parametrize("table", wire.TABLES, ids=lambda table: table.name)
def test_a_block_of_before_a_column_came_is_sealed_without_it(table: Table) -> None:
    added = {column.name for column in table.columns if column.is_addition}
    whole = row(table.name)
    blocks = [pack(table.name, [{k: v for k, v in whole.items() if k not in added}]), pack(table.name, [whole])]
    data, sums = to_parquet(table, blocks)
    found = pq.read_table(io.BytesIO(data))
    assert found.schema == table.arrow
    assert sums["rows"] == 2
    assert found.to_pylist() == [whole | dict.fromkeys(added), whole]
