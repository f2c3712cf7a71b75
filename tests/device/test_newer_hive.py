"""What the newest public Hive (2026-08) writes in another way than the one before: both are read."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.device import lines
from pipelines.device.readers.hive import events
from tests.device.driving import LATER, SESSION, Json, append, dump, event, granted, queen_folder, turn

WORKER = "session_20260504_101600_00000001"


def worker_turn(number: int) -> Json:
    return {**turn(number, session=WORKER), "stream_id": f"worker:{WORKER}", "colony_id": SESSION}


def worker_event(kind: str, data: Json) -> Json:
    return event(kind, data, session=WORKER, stream=f"worker:{WORKER}", colony_id=SESSION)


@given(st.integers(1, 400), st.integers(0, 2), st.booleans())
@settings(max_examples=60)
def test_a_line_written_again_after_a_failed_write_counts_once(cut: int, number: int, is_whole: bool) -> None:
    """The log is opened again and the whole line is written once more, behind what the failed write left of it."""
    line = json.dumps(turn(number)).encode()
    torn = line if is_whole else line[: min(cut, len(line) - 1)]
    for between in (b"", b"\n"):
        data = torn + between + line
        found = [
            parsed["data"]["iteration"]
            for part in data.split(b"\n")
            if events.may_matter(part)
            for _, parsed in lines.parse(part, events.is_event).records
        ]
        assert set(found) == {number}, "read twice it is one record: both have one identity"


def test_the_same_line_twice_is_one_turn(tmp_path: Path) -> None:
    home = tmp_path / "hive"
    line = dump(turn(1))
    append(queen_folder(home) / "events.jsonl", line[:80] + line + line + dump(turn(2)))
    made = granted(tmp_path / "apiary", home)
    made.ship(home)
    assert sorted(row["iteration"] for row in made.delivered("llm_turns")) == [1, 2]


def test_lines_of_one_worker_in_two_logs_count_once(tmp_path: Path) -> None:
    """HIVE_SPLIT_WORKER_EVENTS: a worker's own log, or its queen's where the place is not found; some lines in both."""
    home = tmp_path / "hive"
    started = worker_event("node_loop_started", {})
    report = worker_event("subagent_report", {"worker_id": WORKER, "status": "success", "tokens_used": 3})
    queen = dump(turn(1), {**turn(5), "stream_id": "worker"}, worker_turn(2), started, report)
    append(queen_folder(home) / "events.jsonl", queen)
    append(home / "colonies/leads/workers" / WORKER / "events.jsonl", dump(started, worker_turn(3), report))
    made = granted(tmp_path / "apiary", home)
    made.ship(home)
    turns = sorted((row["iteration"], row["session_id"], row["agent_role"]) for row in made.delivered("llm_turns"))
    assert turns == [(1, SESSION, "queen"), (2, WORKER, "worker"), (3, WORKER, "worker"), (5, SESSION, "worker")]
    assert {row["parent_session_id"] for row in made.delivered("llm_turns") if row["session_id"] == WORKER} == {SESSION}
    assert len(made.delivered("status_events")) == 1
    assert [row["session_id"] for row in made.delivered("agent_runs")] == [WORKER]


def test_a_cancelled_turn_without_a_model_is_a_turn_of_no_tokens(tmp_path: Path) -> None:
    home = tmp_path / "hive"
    nothing = {"input_tokens": 0, "output_tokens": 0, "cached_tokens": 0, "cache_creation_tokens": 0, "cost_usd": 0.0}
    cancelled = turn(1, model="", stop_reason="cancelled", **nothing)
    append(queen_folder(home) / "events.jsonl", dump(cancelled, turn(2, stop_reason="cancelled")))
    made = granted(tmp_path / "apiary", home)
    made.ship(home)
    first, second = sorted(made.delivered("llm_turns"), key=lambda row: row["iteration"])
    assert (first["model"], first["input_tokens"], first["output_tokens"]) == (None, 0, 0)
    assert first["reported_cost_usd"] is None
    assert first["stop_reason"] == second["stop_reason"] == "cancelled"
    assert second["input_tokens"] == 102, "what was billed before it was cancelled counts"


def test_a_time_without_a_fraction_is_a_time(tmp_path: Path) -> None:
    """`isoformat` leaves the fraction out where it is zero, also between two lines that have one."""
    home = tmp_path / "hive"
    stamps = ("2026-05-04T10:15:30.999999", "2026-05-04T10:15:31", "2026-05-04T10:15:31.000001")
    append(queen_folder(home, LATER) / "events.jsonl", dump(*(turn(n, at=at) for n, at in enumerate(stamps))))
    made = granted(tmp_path / "apiary", home)
    made.ship(home)
    found = sorted(row["occurred_at"] for row in made.delivered("llm_turns"))
    assert found == [
        datetime(2026, 5, 4, 8, 15, 30, 999_999, tzinfo=UTC),
        datetime(2026, 5, 4, 8, 15, 31, tzinfo=UTC),
        datetime(2026, 5, 4, 8, 15, 31, 1, tzinfo=UTC),
    ]
