"""L1, L2, L3 and runs.jsonl: what a line becomes, and that a line is the same line wherever it is found again."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from pipelines.contract import wire
from pipelines.contract.keys import record_id
from pipelines.device.clock import Clock
from pipelines.device.readers.base import Record
from pipelines.device.readers.hive import logs as hive_logs
from pipelines.device.readers.hive.layout import SessionFolder
from tests.device.driving import LATER, SESSION, step, tool

AT = datetime(2026, 5, 4, tzinfo=UTC)


def place(session: str = SESSION, number: int = 3) -> hive_logs.Place:
    return hive_logs.Place(SessionFolder(Path("/x"), session, "other"), number, AT)


def identity(record: Record) -> str:
    return record_id("acme", record.table.name, *record.key)


def test_a_step_and_its_tool_calls() -> None:
    calls = [tool("2026-05-04T10:00:05+00:00", is_error=True), tool(), "odd", tool("2026-05-04T10:00:01+00:00")]
    first, *rest = hive_logs.steps(step(4, tool_calls=calls), place())
    assert (first.table, first.is_turn, first.belongs_to_folder) == (wire.NODE_STEPS, True, True)
    assert first.at == datetime(2026, 5, 4, 10, 0, 1, tzinfo=UTC), "the earliest tool start is the step's time"
    assert (first.values["step_index"], first.values["input_tokens"]) == (4, 204)
    assert [record.table for record in rest] == [wire.TOOL_CALLS] * 3
    assert [record.values["is_error"] for record in rest] == [True, False, False]
    assert {record.key[:-1] for record in rest} == {first.key}
    assert len({identity(record) for record in rest}) == 3


def test_a_compaction_marker_is_no_turn() -> None:
    (marker,) = hive_logs.steps(step(-1, verdict="COMPACTION"), place())
    assert not marker.is_turn


def test_a_span_is_the_identity_whatever_the_folder_and_the_line() -> None:
    (here,) = hive_logs.steps(step(1), place())
    (copy,) = hive_logs.steps(step(1), place(LATER, 9))
    assert identity(here) == identity(copy)
    assert copy.values["session_id"] == LATER


def test_two_equal_lines_of_an_early_version_are_two() -> None:
    (first,) = hive_logs.steps(step(1, span=False), place(number=3))
    (second,) = hive_logs.steps(step(1, span=False), place(number=4))
    (other,) = hive_logs.steps(step(1, span=False), place(LATER, number=3))
    assert len({identity(first), identity(second), identity(other)}) == 3


def test_a_step_and_a_detail_of_one_span_are_two_records() -> None:
    (made,) = hive_logs.steps(step(1), place())
    left = hive_logs.detail({**step(1), "exit_status": "success"}, place())
    assert identity(made) != identity(left)


@pytest.mark.parametrize("calls", [None, 5, "text", {"a": 1}, [None, 5, []]])
def test_odd_tool_calls_cost_only_themselves(calls: Any) -> None:
    (made,) = hive_logs.steps(step(1, tool_calls=calls), place())
    assert made.values["input_tokens"] == 201


def test_a_line_nested_without_end_is_a_line() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    (made,) = hive_logs.steps(step(1, span=False, tool_calls=[tool(tool_input={"a": deep})]), place())[:1]
    assert made.values["step_index"] == 1
    assert hive_logs.summary({"a": deep}, place().folder).values["session_id"] == SESSION


def test_a_node_exit() -> None:
    line = {
        "node_id": "n",
        "exit_status": "ghost_stream",
        "success": False,
        "attention_reasons": ["x", "y"],
        "error": "429",
    }
    record = hive_logs.detail({**line, "span_id": "0" * 15 + "a", "retry_count": 4, "stacktrace": "z"}, place())
    assert (record.table, record.belongs_to_folder, record.at) == (wire.NODE_DETAILS, True, None)
    assert (record.values["exit_status"], record.values["retry_count"]) == ("ghost_stream", 4)
    assert record.fields_dropped == 1


def test_each_version_of_a_summary_is_a_record() -> None:
    found = {"trace_id": "a" * 32, "started_at": "2026-05-04T10:00:00+00:00", "status": "success"}
    folder = place().folder
    first, stale = hive_logs.summary(found, folder), hive_logs.summary(dict(found), folder)
    newer = hive_logs.summary({**found, "total_input_tokens": 9}, folder)
    assert identity(first) == identity(stale) != identity(newer)
    assert first.at == datetime(2026, 5, 4, 10, tzinfo=UTC)


def test_a_line_of_the_runs_file() -> None:
    line = {
        "run_id": "0a1b2c3d4e5f",
        "event": "run_failed",
        "timestamp": "2026-05-04T10:00:00",
        "created_at": Decimal("1.5"),
    }
    record = hive_logs.run({**line, "error": "401 for ada"}, place(), Clock("Europe/Berlin"))
    assert record is not None
    assert record.at == datetime(2026, 5, 4, 8, tzinfo=UTC)
    assert (record.values["kind"], record.values["run_id"]) == ("failed", "0a1b2c3d4e5f")
    assert hive_logs.run({**line, "event": "run_dreamt"}, place(), Clock("Europe/Berlin")) is None


def test_which_object_is_a_line_of_which_file() -> None:
    assert hive_logs.is_step(step(1))
    assert not hive_logs.is_step(tool())
    assert hive_logs.is_detail({"node_id": "n", "success": True})
    assert not hive_logs.is_detail({"node_id": "n"})
    assert hive_logs.is_run({"run_id": "x", "event": "run_started"})
    assert not hive_logs.is_run({"run_id": "x", "event": None})
