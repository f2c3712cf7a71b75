"""Consent: nothing without it, nothing of before it, nothing left after it was taken back."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from pipelines.contract import wire
from pipelines.device import consent, grant, own_sums
from pipelines.device import ship as shipping
from pipelines.device.collect import Collector
from pipelines.device.consent import SOURCES, Consent
from pipelines.device.errors import DeviceError
from pipelines.device.state import State
from pipelines.errors import UsageError
from pipelines.home import exclusive
from pipelines.simulate.homes import Layout
from tests.device.claude_lines import session_id, transcript
from tests.device.driving import (
    LATER,
    LATEST,
    LAYOUTS,
    SESSION,
    ZONE,
    Device,
    append,
    device,
    dump,
    event,
    flat_folder,
    granted,
    queen_folder,
    simulated,
    step,
    tool,
    turn,
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    made = tmp_path / "hive"
    made.mkdir()
    return made


def listing(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*")}


def local(at: datetime) -> str:
    return at.astimezone(ZoneInfo(ZONE)).replace(tzinfo=None).isoformat()


def after(made: Device, seconds: int = 60) -> str:
    with made.state() as state:
        given = consent.current(state)
    assert given is not None
    return local(given.at + timedelta(seconds=seconds))


# None ----------------------------------------------------------------------------------------------------------------


def test_without_a_grant_nothing_is_made_and_nothing_is_opened(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(queen_folder(home) / "events.jsonl", dump(turn(1)))
    made = device(tmp_path / "apiary")
    before = listing(tmp_path)
    seen: list[str] = []
    really = os.open
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", lambda path, *rest, **more: (seen.append(str(path)), really(path, *rest, **more))[1])
        patch.setattr(os, "scandir", lambda path: pytest.fail(f"listed {path}"))
        with pytest.raises(UsageError, match="consent"):
            made.ship(home)
    assert listing(tmp_path) == before
    assert not [path for path in seen if str(home) in path]


def test_without_an_enrolment_there_is_nothing_to_grant(tmp_path: Path, home: Path) -> None:
    made = Device(device(tmp_path / "a").home, "")
    shutil.rmtree(tmp_path / "a")
    for act in (lambda: made.grant([home]), lambda: made.ship(home), lambda: made.preview(home), made.withdraw):
        with pytest.raises(UsageError, match="not enrolled"):
            act()
    assert not (tmp_path / "a").exists()


def test_a_contract_that_became_wider_needs_a_new_grant(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(queen_folder(home) / "events.jsonl", dump(turn(1)))
    made = granted(tmp_path / "apiary", home)
    table = wire.LLM_TURNS
    wider = type(table)(name=table.name, grain="g", source="s", columns=table.columns, version=2)
    with monkeypatch.context() as patch:
        patch.setattr(wire, "TABLES", (wider, *wire.TABLES[1:]))
        with pytest.raises(UsageError, match="contract has changed"):
            made.ship(home)
    assert made.manifests() == []
    made.ship(home)
    assert len(made.manifests()) == 1


def test_a_withdrawal_while_a_shipping_waits_for_the_lock_is_heeded(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(queen_folder(home) / "events.jsonl", dump(turn(1)))
    made = granted(tmp_path / "apiary", home)

    asked, really = 0, consent.require

    def require(state: State | None) -> Consent:
        nonlocal asked
        asked += 1
        return really(state)

    @contextmanager
    def late(lock: Path) -> Iterator[None]:
        if asked == 1:  # after the first question, before the lock is held
            made.withdraw()
        with exclusive(lock):
            yield

    monkeypatch.setattr(consent, "require", require)
    monkeypatch.setattr(shipping, "exclusive", late)
    with pytest.raises(UsageError, match="consent"):
        made.ship(home)
    assert (asked, made.manifests()) == (2, [])


# Without history -----------------------------------------------------------------------------------------------------


def test_no_record_of_before_the_grant_leaves_and_every_one_after_it_does(tmp_path: Path, home: Path) -> None:
    events, logs = queen_folder(home) / "events.jsonl", flat_folder(home, LATER) / "logs"
    untimed = event("judge_verdict", {"action": "ACCEPT", "iteration": 1}, at=None)
    append(events, dump(turn(1), turn(2), untimed))
    append(logs / "tool_logs.jsonl", dump(step(1, tool_calls=[tool("2026-05-04T10:00:00+00:00"), tool()]), step(2)))
    append(logs / "details.jsonl", dump({"node_id": "n", "success": True, "span_id": "0" * 15 + "a"}))
    (logs / "summary.json").write_text(json.dumps({"status": "success", "total_input_tokens": 77}))
    made = granted(tmp_path / "apiary", home, history="exclude")
    append(events, dump(turn(3, at=after(made)), {**untimed, "data": {"action": "RETRY", "iteration": 2}}))
    append(logs / "tool_logs.jsonl", dump(step(3), step(4, tool_calls=[tool(datetime.now(UTC).isoformat())])))
    append(logs / "details.jsonl", dump({"node_id": "n", "success": True, "span_id": "0" * 15 + "b"}))
    made.ship(home)
    assert [row["iteration"] for row in made.delivered("llm_turns")] == [3]
    assert sorted(row["step_index"] for row in made.delivered("node_steps")) == [3, 4]
    assert [row["span_id"] for row in made.delivered("node_details")] == ["0" * 15 + "b"]
    assert [row["verdict"] for row in made.delivered("status_events")] == ["RETRY"]
    assert made.delivered("run_summaries") == [], "an L1 file without a time was there before"
    assert sum(row["lines_before_consent"] for row in made.sources()) == 7


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_time_of_before_the_grant_is_in_any_file(tmp_path: Path, home: Path, layout: Layout) -> None:
    simulated(home, layout)
    made = granted(tmp_path / "apiary", home, history="exclude")
    with made.state() as state:
        given = consent.current(state)
    assert given is not None
    for path in home.rglob("events.jsonl"):
        append(path, dump(turn(1, at=after(made), session=path.parent.name)))
    made.ship(home)
    rows = made.delivered()
    times = [(name, value) for row in rows for name, value in row.items() if isinstance(value, datetime)]
    assert len(times) > 5
    early = {name for name, value in times if value < given.at}
    assert early == set()
    assert {row["_table"] for row in rows} >= {"llm_turns", "sessions", "device_reports", "source_files"}


def test_copies_by_later_forks_stay_at_home(tmp_path: Path, home: Path) -> None:
    first = flat_folder(home)
    append(first / "events.jsonl", dump(turn(1), event("node_stalled", {"reason": "x"}, at=None, session=None)))
    append(first / "runs.jsonl", dump({"run_id": "0a1b2c3d4e5f", "event": "run_started", "timestamp": None}))
    append(first / "logs" / "tool_logs.jsonl", dump(step(1), step(2, tool_calls=[tool()])))
    append(first / "logs" / "details.jsonl", dump({"node_id": "n", "success": True, "span_id": "0" * 15 + "a"}))
    (first / "logs" / "summary.json").write_text(json.dumps({"status": "success", "trace_id": "a" * 32}))
    made = granted(tmp_path / "apiary", home, history="exclude")
    fork = home / "sessions" / LATER
    shutil.copytree(first, fork)
    append(fork / "events.jsonl", dump(turn(2, at=after(made), session=LATER)))
    append(fork / "logs" / "tool_logs.jsonl", dump(step(3)))
    made.ship(home)
    shutil.copytree(fork, home / "sessions" / LATEST)
    made.ship(home)
    assert [(row["iteration"], row["session_id"]) for row in made.delivered("llm_turns")] == [(2, LATER)]
    assert [(row["step_index"], row["session_id"]) for row in made.delivered("node_steps")] == [(3, LATER)]
    for table in ("node_details", "status_events", "run_summaries", "tool_calls", "agent_runs"):
        assert made.delivered(table) == [], table


def test_the_totals_of_a_summary_tell_nothing_of_runs_before(tmp_path: Path, home: Path) -> None:
    logs = flat_folder(home) / "logs"
    made = granted(tmp_path / "apiary", home, history="exclude")
    found = {
        "status": "success",
        "started_at": datetime.now(UTC).isoformat(),
        "duration_ms": 5,
        "total_input_tokens": 900,
    }
    (logs / "summary.json").write_text(json.dumps(found))
    made.ship(home)
    (row,) = made.delivered("run_summaries")
    assert (row["status"], row["duration_ms"], row["total_input_tokens"]) == ("success", 5, None)


def test_a_record_that_was_torn_at_the_grant_and_the_one_glued_to_it_after(tmp_path: Path, home: Path) -> None:
    path = flat_folder(home) / "logs" / "tool_logs.jsonl"
    append(path, dump(step(1)) + dump(step(2))[:40])
    made = granted(tmp_path / "apiary", home, history="exclude")
    append(path, dump(step(3), step(4)))
    made.ship(home)
    assert sorted(row["step_index"] for row in made.delivered("node_steps")) == [3, 4]


def test_a_line_that_began_before_the_grant_stays_when_its_end_comes_after(tmp_path: Path, home: Path) -> None:
    path = flat_folder(home) / "logs" / "tool_logs.jsonl"
    append(path, dump(step(1))[:40])
    made = granted(tmp_path / "apiary", home, history="exclude")
    append(path, dump(step(1))[40:] + dump(step(2)))
    made.ship(home)
    assert [row["step_index"] for row in made.delivered("node_steps")] == [2]


def test_a_rewrite_brings_no_history_back(tmp_path: Path, home: Path) -> None:
    path = flat_folder(home) / "logs" / "tool_logs.jsonl"
    append(path, dump(*map(step, range(5))))
    made = granted(tmp_path / "apiary", home, history="exclude")
    aside = append(path.with_name("aside"), dump(*(step(number, llm_text="x" * 500) for number in range(6))))
    aside.replace(path)
    made.ship(home)
    assert {row["step_index"] for row in made.delivered("node_steps")} <= {5}


def test_a_home_nobody_named_at_the_grant_brings_no_history(tmp_path: Path, home: Path) -> None:
    other = tmp_path / "other"
    path = append(flat_folder(other) / "logs" / "tool_logs.jsonl", dump(step(1)))
    made = granted(tmp_path / "apiary", history="exclude")
    made.ship(home, other)
    append(path, dump(step(2)))
    made.ship(home, other)
    assert [row["step_index"] for row in made.delivered("node_steps")] == [2]


def test_a_grant_that_died_before_its_baseline_lets_no_history_out(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(flat_folder(home) / "logs" / "tool_logs.jsonl", dump(step(1)))
    made = device(tmp_path / "apiary")
    with monkeypatch.context() as patch:
        patch.setattr(Collector, "baseline", lambda *_: None)
        made.grant([home], history="exclude")
    made.ship(home)
    assert made.delivered("node_steps") == []


def test_a_baseline_that_cannot_be_taken_leaves_no_grant(tmp_path: Path) -> None:
    made = device(tmp_path / "apiary")
    with pytest.raises(UsageError, match="does not exist"):
        made.grant([tmp_path / "nowhere"], history="exclude")
    with pytest.raises(UsageError, match="consent"):
        made.ship(tmp_path)


# What a grant covers -------------------------------------------------------------------------------------------------


def test_a_home_outside_the_grant_is_not_even_looked_at(tmp_path: Path, home: Path) -> None:
    other = tmp_path / "other"
    append(queen_folder(home) / "events.jsonl", dump(turn(1)))
    append(queen_folder(other, LATER) / "events.jsonl", dump(turn(2, session=LATER)))
    made = granted(tmp_path / "apiary", home)
    opened: list[str] = []
    sys.addaudithook(lambda event, values: opened.append(str(values[0])) if event in ("open", "os.scandir") else None)
    shipped = made.ship(home, other)
    assert [problem for problem in shipped.problems if "the consent does not cover it" in problem]
    assert [name for name in opened if name.startswith(str(other))] == []
    assert [row["session_id"] for row in made.delivered("llm_turns")] == [SESSION]
    with pytest.raises(UsageError, match="does not cover it"):
        made.ship(other)
    assert made.preview(home, other).problems
    made.grant([home, other])
    made.ship(home, other)
    assert {row["session_id"] for row in made.delivered("llm_turns")} == {SESSION, LATER}
    assert str(home).encode() not in made.state_file.read_bytes(), "homes are known by their keyed hash"


@pytest.mark.parametrize("kind", list(SOURCES))
def test_only_the_kinds_of_sources_that_were_granted_are_opened(tmp_path: Path, home: Path, kind: str) -> None:
    simulated(home, "v2")
    simulated(home, "doc")
    files = {
        "events": {"events.jsonl"},
        "logs": {"tool_logs.jsonl", "details.jsonl", "summary.json", "runs.jsonl"},
        "descriptions": {"meta.json", "state.json", "metadata.json", "worker.json"},
        "tasks": {"tasks.json", "progress.db", "metadata.json", "worker.json"},
    }
    made = device(tmp_path / "apiary")
    grant.grant(made.home, [home], history="include", sources=[kind])
    opened: list[str] = []
    sys.addaudithook(lambda event, values: opened.append(str(values[0])) if event == "open" else None)
    made.ship(home)
    touched = {Path(name).name.removesuffix("-wal") for name in opened if name.startswith(str(home))}
    assert touched
    assert touched <= files[kind]


def test_an_unknown_kind_of_source_is_wrong_use(tmp_path: Path, home: Path) -> None:
    with pytest.raises(UsageError, match="there are no sources chat"):
        grant.grant(device(tmp_path / "apiary").home, [home], history="include", sources=["chat"])


@pytest.mark.parametrize("is_paused", [False, True])
def test_a_narrower_grant_lets_nothing_out_that_was_read_under_the_wider_one(
    tmp_path: Path, home: Path, is_paused: bool
) -> None:
    append(queen_folder(home) / "events.jsonl", dump(turn(1)))
    append(flat_folder(home) / "logs" / "tool_logs.jsonl", dump(step(1)))
    blocked = tmp_path / "store"
    made = granted(tmp_path / "apiary", home, store=blocked)
    blocked.write_text("a file where the store should be")
    with pytest.raises(DeviceError):
        made.ship(home)
    blocked.unlink()
    if is_paused:
        grant.pause(made.home)
    grant.grant(made.home, [home], history="include", sources=["events"])
    made.ship(home)
    assert (len(made.delivered("llm_turns")), made.delivered("node_steps")) == (1, [])


# Changing one's mind -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_paused", [False, True])
def test_a_grant_with_history_after_one_without_sends_the_history(tmp_path: Path, home: Path, is_paused: bool) -> None:
    append(flat_folder(home) / "logs" / "tool_logs.jsonl", dump(step(1)))
    append(queen_folder(home) / "events.jsonl", dump(turn(1)))
    made = granted(tmp_path / "apiary", home, history="exclude")
    made.ship(home)
    assert not made.delivered("llm_turns", "node_steps")
    if is_paused:
        grant.pause(made.home)
    made.grant([home], history="include")
    made.ship(home)
    assert len(made.delivered("llm_turns", "node_steps", newest=False)) == 2


def detail(steps: int) -> dict[str, Any]:
    return {
        "node_id": "intake", "node_type": "event_loop", "total_steps": steps, "tokens_used": 66, "input_tokens": 60,
        "output_tokens": 6, "latency_ms": 9, "attempt": 1, "exit_status": "success", "span_id": f"{steps:016x}",
    }  # fmt: skip


def test_sums_of_what_was_before_a_grant_without_history_stay(tmp_path: Path, home: Path) -> None:
    """They are written after the grant, and count what no consent covers; what began after it leaves whole."""
    log = append(flat_folder(home) / "logs" / "details.jsonl", dump(detail(1)))
    made = device(tmp_path / "apiary")
    since = datetime.now(UTC) - timedelta(hours=1)
    made.grant([home], history="exclude", now=since)
    append(log, dump(detail(3)))
    reports = [
        event(
            "subagent_report",
            {"worker_id": worker, "tokens_used": 5, "tool_calls_used": 7, "duration_seconds": took},
            at=(since + timedelta(minutes=30)).replace(tzinfo=None).isoformat(), stream=f"worker:{worker}",
        )
        for worker, took in ((SESSION, 7000.0), (LATER, 60.0))
    ]  # fmt: skip
    append(queen_folder(home) / "events.jsonl", dump(*reports))
    made.ship(home)
    (left,) = made.delivered("node_details")
    assert (left["exit_status"], left["total_steps"], left["input_tokens"], left["tokens_used"]) == (
        "success", None, None, None,
    )  # fmt: skip
    told = {row["session_id"]: (row["tokens_used"], row["tool_calls_used"]) for row in made.delivered("agent_runs")}
    assert told == {SESSION: (None, None), LATER: (5, 7)}


@pytest.mark.parametrize(("started", "numbers"), [(-300, None), (None, [None, None]), (10, [9, 9])])
def test_what_a_session_cost_before_a_grant_without_history_stays(
    tmp_path: Path, started: int | None, numbers: list[int | None] | None
) -> None:
    """`started`: minutes after the grant, where the file says so."""
    since = datetime.now(UTC) - timedelta(hours=1)
    home, session = tmp_path / ".claude", session_id(1)
    path = append(transcript(home, session), dump())
    made = device(tmp_path / "apiary")
    made.grant([home], history="exclude", now=since)
    state = {
        "type": "cost-state", "sessionId": session, "uuid": "x", "totalCostUSD": 9.5, "totalDuration": 60_000,
        "modelUsage": {"claude-opus-5": {"inputTokens": 2, "outputTokens": 9, "costUSD": 9.5}},
    }  # fmt: skip
    if started is not None:
        state["startTime"] = int((since + timedelta(minutes=started)).timestamp() * 1000)
    append(path, dump(state))
    made.ship(home)
    found = [row["output_tokens"] for row in made.delivered("control_totals")]
    assert found == (numbers or [])


def test_a_step_that_was_done_before_a_grant_without_history_stays(tmp_path: Path, home: Path) -> None:
    """Although its task was changed since."""
    since = datetime.now(UTC) - timedelta(hours=1)
    old, new = (f"{since + timedelta(minutes=minutes):%Y-%m-%d %H:%M:%S}" for minutes in (-300, 30))
    folder = home / "colonies" / "c1"
    (folder / "data").mkdir(parents=True)
    (folder / "metadata.json").write_text(json.dumps({"colony_name": "c1", "queen_session_id": SESSION}))
    with closing(sqlite3.connect(folder / "data" / "progress.db")) as db, db:
        db.executescript(
            "CREATE TABLE tasks (id, seq, priority, status, worker_id, claimed_at, started_at, completed_at,"
            " created_at, updated_at, retry_count, max_retries, last_error, parent_task_id, source);"
            "CREATE TABLE steps (id, task_id, seq, status, worker_id, started_at, completed_at);"
            "CREATE TABLE sop_checklist (id, task_id, required, done_at, done_by);"
        )
        db.execute("INSERT INTO tasks (id, status, created_at, updated_at) VALUES ('t', 'claimed', ?, ?)", (old, new))
        steps = [("s1", "done", old), ("s2", "done", new), ("s3", "pending", None)]
        db.executemany("INSERT INTO steps (id, task_id, status, completed_at) VALUES (?, 't', ?, ?)", steps)
        db.execute("INSERT INTO sop_checklist VALUES ('k', 't', 1, ?, 'w')", (old,))
    made = device(tmp_path / "apiary")
    made.grant([home], history="exclude", now=since)
    made.ship(home)
    found = sorted((row["item"], row["status"]) for row in made.delivered("tasks"))
    assert found == [("step", "done"), ("step", "pending"), ("task", "claimed")]


def test_a_grant_without_history_after_one_with_it_sends_none(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(queen_folder(home) / "events.jsonl", dump(turn(1)))
    blocked = tmp_path / "store"
    made = granted(tmp_path / "apiary", home, store=blocked)
    blocked.write_text("a file where the store should be")
    with pytest.raises(DeviceError):
        made.ship(home)
    blocked.unlink()
    made.grant([home], history="exclude")
    made.ship(home)
    assert made.delivered("llm_turns") == [], "what was sealed under the wider consent must not leave under this one"


def test_a_withdrawal_empties_everything_and_a_new_grant_doubles_nothing(tmp_path: Path, home: Path) -> None:
    simulated(home, "v2")
    blocked = tmp_path / "store"
    made = granted(tmp_path / "apiary", home, store=blocked)
    made.ship(home)
    before = made.ids()
    append(queen_folder(home) / "events.jsonl", dump(turn(1)))
    blocked.rename(tmp_path / "kept")
    blocked.write_text("")
    with pytest.raises(DeviceError):
        made.ship(home)
    own_sums.place(made.home, [home], "UTC").mkdir(parents=True)
    made.withdraw()
    assert not own_sums.is_kept(made.home), "the owner's own sums too"
    with made.state() as state:
        assert set(state.totals().values()) == {0}
        assert state.waiting_rows() == {}
    assert [path for path in (made.home.device / "spool").rglob("*") if path.is_file()] == []
    with pytest.raises(UsageError, match="consent"):
        made.ship(home)
    blocked.unlink()
    (tmp_path / "kept").rename(blocked)
    made.grant([home])
    made.ship(home)
    rows = made.delivered("llm_turns", "node_steps", "tool_calls", newest=False)
    assert len(rows) == 2 * len({row["record_id"] for row in rows}) - 1, "the same ids again, and the new turn"
    assert before < made.ids()
    epochs = {manifest["epoch"] for manifest in made.manifests()}
    assert len(epochs) == 2, "batches count from 1 again, so their chain must be another one"


def test_there_is_nothing_to_withdraw_twice(tmp_path: Path, home: Path) -> None:
    made = granted(tmp_path / "apiary", home)
    made.withdraw()
    with pytest.raises(UsageError, match="withdrawn already"):
        made.withdraw()


def test_a_running_shipping_keeps_consent_from_changing(tmp_path: Path, home: Path) -> None:
    made = granted(tmp_path / "apiary", home)
    with exclusive(made.home.device / "lock"):
        for act in (lambda: made.grant([home]), made.withdraw, lambda: made.ship(home)):
            with pytest.raises(DeviceError, match="running"):
                act()


def test_every_manifest_names_its_consent(tmp_path: Path, home: Path) -> None:
    append(queen_folder(home) / "events.jsonl", dump(turn(1)))
    made = granted(tmp_path / "apiary", home)
    made.ship(home)
    with made.state() as state:
        given = consent.current(state)
    assert given is not None
    (manifest,) = made.manifests()
    assert manifest["consent_id"] == given.consent_id
    (report,) = made.delivered("device_reports")
    assert (report["consent_id"], report["history"]) == (given.consent_id, "include")
