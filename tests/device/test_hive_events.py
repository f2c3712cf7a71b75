"""Events: which become records, whose they are, and that the many others are not even parsed."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from pipelines.contract import wire
from pipelines.contract.keys import record_id
from pipelines.device.clock import Clock, LogClock
from pipelines.device.lines import loads
from pipelines.device.readers.base import Record
from pipelines.device.readers.hive import events as hive_events
from pipelines.device.readers.hive.layout import SessionFolder
from tests.device.driving import LATER, SESSION, event, turn

WORKER = "session_20260504_101600_00000001"


def read(found: dict[str, Any], session: str = SESSION) -> Record:
    folder = SessionFolder(Path("/x"), session, "queen")
    context = hive_events.Context(folder, LogClock(Clock("Europe/Berlin")))
    record = hive_events.read(loads(json.dumps(found).encode()), context)
    assert record is not None
    return record


def test_a_turn_is_read_with_its_usage() -> None:
    record = read(turn(1, credits=Decimal("2.5").__float__()))
    assert (record.table, record.is_turn, record.belongs_to_folder) == (wire.LLM_TURNS, True, False)
    assert record.at == datetime(2026, 5, 4, 8, 0, 1, 500_000, tzinfo=UTC)
    kept = {name: value for name, value in record.values.items() if value is not None}
    assert kept == {
        "session_id": SESSION, "stream_id": "queen", "node_id": "queen", "model": "anthropic/claude-opus-4-6",
        "agent_role": "queen", "stop_reason": "stop", "iteration": 1, "input_tokens": 101, "output_tokens": 10,
        "cache_read_input_tokens": 5, "cache_write_input_tokens": 1, "reported_cost_usd": Decimal("0.0125"),
        "reported_credits": Decimal("2.5"), "occurred_at": record.at, "time_basis": "local_resolved",
        "is_time_ambiguous": False, "utc_offset_seconds": 7200, "offset_basis": "device_zone", "is_copy": False,
    }  # fmt: skip


def test_a_copy_in_a_fork_is_the_same_record_and_stays_its_owners() -> None:
    original, copy = read(turn(1)), read(turn(1), session=LATER)
    assert original.key == copy.key
    assert copy.values["session_id"] == SESSION


def test_a_turn_without_an_execution_is_the_folders() -> None:
    record = read(turn(1, session=None), session=LATER)
    assert (record.values["session_id"], record.belongs_to_folder) == (LATER, True)


@pytest.mark.parametrize("other", [{"iteration": 2}, {"at": "2026-05-04T10:00:09"}, {"session": LATER}])
def test_another_turn_is_another_record(other: dict[str, Any]) -> None:
    assert read(turn(1)).key != read(turn(1, **other)).key


def test_the_janitor_who_writes_a_line_anew_makes_no_new_record() -> None:
    again = json.loads(json.dumps(turn(1), sort_keys=True, separators=(",", ":")))
    assert read(again).key == read(turn(1)).key


def test_a_worker_in_the_queens_file_has_its_own_usage_and_its_queen_for_a_parent() -> None:
    found = turn(1, session=WORKER) | {"stream_id": f"worker:{WORKER}", "colony_id": SESSION}
    values = read(found).values
    assert (values["session_id"], values["parent_session_id"], values["agent_role"]) == (WORKER, SESSION, "worker")


@pytest.mark.parametrize(
    ("stream", "role"),
    [("queen", "queen"), ("overseer", "queen"), ("worker", "worker"), ("worker:x", "worker"), ("default", "graph"),
     ("acme-entry", "graph"), (None, "other"), (5, "other"), ("", "other")],
)  # fmt: skip
def test_the_role_of_a_stream(stream: Any, role: str) -> None:
    assert read(turn(1) | {"stream_id": stream}).values["agent_role"] == role


def test_early_turns_lack_keys_and_their_values_are_unknown_not_zero() -> None:
    found = turn(1)
    for name in ("cached_tokens", "cache_creation_tokens", "cost_usd"):
        del found["data"][name]
    values = read(found).values
    names = ("cache_read_input_tokens", "cache_write_input_tokens", "reported_cost_usd", "reported_credits")
    assert [values[name] for name in names] == [None] * 4


def test_fields_that_nobody_asked_for_are_counted() -> None:
    found = turn(1, full_request={"prompt": "x"}, system_prefix_sha="y")
    assert (read(found).fields_dropped, read(found).fields_unknown) == (2, 0)


def test_what_no_version_writes_is_counted_and_not_named() -> None:
    """The sentinel: a newer runtime shows by numbers, and its names may be content."""
    found = turn(1, full_request={}, reasoning_tokens=5) | {"session_id": SESSION}
    assert read(found).fields_unknown == 2
    assert read(event("judge_verdict", {"anything": 1}) | {"seq": 4}).fields_unknown == 0
    for kind, is_unknown in (("llm_text_delta", False), ("llm_turn_complete", False), ("llm_turn_billed", True)):
        line = event(kind, {})
        assert hive_events.is_unknown(line) == is_unknown
        assert hive_events.is_unknown_line(json.dumps(line).encode()) == is_unknown


def test_a_worker_report_is_the_workers_whoever_writes_it() -> None:
    data = {"worker_id": WORKER, "status": "success", "tokens_used": 7, "duration_seconds": 1.5, "summary": "secret"}
    record = read(event("subagent_report", data, session=None), session=LATER)
    assert (record.table, record.values["session_id"], record.belongs_to_folder) == (wire.AGENT_RUNS, WORKER, False)
    assert (record.values["outcome"], record.values["tokens_used"]) == ("success", 7)


def test_a_colony_that_was_made_has_its_maker_for_a_parent() -> None:
    data = {"queen_session_id": LATER, "colony_name": "leads", "colony_path": "/Users/ada"}
    record = read(event("colony_created", data))
    assert (record.table, record.values["session_id"], record.values["parent_session_id"]) == (
        wire.SESSIONS, LATER, SESSION,
    )  # fmt: skip


def test_how_full_the_context_is_belongs_to_the_worker_whose_stream_says_so() -> None:
    data = {
        "usage_ratio": 0.0667,
        "estimated_tokens": 12000,
        "max_context_tokens": 180000,
        "trigger": "iteration_start",
    }
    found = event("context_usage_updated", data, session=None)
    record = read(found | {"stream_id": f"worker:{WORKER}", "colony_id": SESSION})
    values = record.values
    assert (values["session_id"], values["parent_session_id"], record.belongs_to_folder) == (WORKER, SESSION, False)
    assert (values["kind"], values["context_tokens"], values["context_limit_tokens"]) == (
        "context_updated",
        12000,
        180000,
    )
    queens = read(found)
    assert (queens.values["session_id"], queens.belongs_to_folder) == (SESSION, True)


def test_a_change_of_a_task_says_which_and_to_what_and_nothing_else() -> None:
    record = {"id": 3, "subject": "secret", "status": "completed", "owner": "queen", "blocks": [4]}
    data = {"task_list_id": "session:queen:x", "task_id": 3, "record": record, "fields": ["status"]}
    values = read(event("task_updated", data)).values
    assert (values["kind"], values["task_id"], values["task_status"]) == ("task_updated", "3", "completed")
    other = read(event("task_updated", data | {"task_id": 4}))
    assert other.key != read(event("task_updated", data)).key
    assert read(event("judge_verdict", {"record": record})).values["task_id"] is None


def test_the_duration_of_a_call_is_read_from_its_start_without_parsing_it() -> None:
    context = hive_events.Context(SessionFolder(Path("/x"), SESSION, "queen"), LogClock(Clock("Europe/Berlin")))
    arguments = {"path": "/Users/ada", "timestamp": "1999-01-01T00:00:00", "tool_use_id": "toolu_other"}
    started = event("tool_call_started", {"tool_use_id": "toolu_1", "tool_name": "x", "tool_input": arguments})
    line = json.dumps(started | {"timestamp": "2026-05-04T10:00:00.250000"})
    assert not context.may_matter(line.encode())
    ended = event("tool_call_completed", {"tool_use_id": "toolu_1", "tool_name": "x", "is_error": False})
    ended |= {"timestamp": "2026-05-04T10:00:02.000000"}

    def seconds() -> object:
        record = hive_events.read(ended, context)
        assert record is not None
        return record.values["duration_seconds"]

    assert seconds() == 1.75
    assert seconds() is None, "a start counts once"
    assert not context.may_matter(line.replace("T10:00:00", "T10:00:09").encode())
    assert seconds() is None, "a start behind its end is another call's"
    for torn in (line[: len(line) // 2], line.replace("toolu_1", "é"), '{"type": "tool_call_started"'):
        assert not context.may_matter(torn.encode())
    assert context.started == {}


@pytest.mark.parametrize("kind", sorted(hive_events.WANTED))
@pytest.mark.parametrize(
    "data", [{}, {"trigger_config": 5, "iteration": "x", "worker_id": 3, "error": 4}, None, "text", [1]]
)
def test_every_wanted_kind_survives_odd_data(kind: str, data: Any) -> None:
    folder = SessionFolder(Path("/x"), SESSION, "queen")
    found = event(kind, data)
    for odd in (
        found,
        {"type": kind, "data": data, "timestamp": None},
        found | {"timestamp": {"a": 1}, "colony_id": []},
    ):
        record = hive_events.read(odd, hive_events.Context(folder, LogClock(Clock("UTC"))))
        if record is not None:
            record_id("acme", record.table.name, *record.key)
            assert record.values.keys() <= record.table.by_name.keys()


# Finding out before parsing ------------------------------------------------------------------------------------------


def test_a_wanted_line_is_never_passed_over() -> None:
    for kind in hive_events.WANTED:
        found = event(kind, {})
        text = json.dumps(found)
        for written in (
            text, json.dumps(found, separators=(",", ":")), json.dumps(found, sort_keys=True), f" {text}",
            f"\ufeff{text}",
            '{"type": "client_output_delta", "da' + text,
        ):  # fmt: skip
            assert hive_events.may_matter(written.encode()), written


def test_streaming_text_is_passed_over_unparsed() -> None:
    for kind in ("client_output_delta", "llm_text_delta", "node_loop_iteration", "tool_call_started"):
        assert not hive_events.may_matter(
            json.dumps(event(kind, {"content": '"type"', "a": "llm_turn_complete"})).encode()
        )


def test_only_an_event_is_an_event() -> None:
    assert hive_events.is_event(turn(1))
    for found in (
        {},
        {"type": "llm_turn_complete"},
        {"type": 5, "data": {}, "timestamp": ""},
        {"data": {}, "timestamp": ""},
    ):
        assert not hive_events.is_event(found)
