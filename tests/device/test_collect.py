"""One pass over a home: every record once, at its origin, whatever the disk looks like; a bad file costs that file."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from dataclasses import astuple
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from pipelines.contract import wire
from pipelines.device import lines
from pipelines.device.errors import DeviceError
from pipelines.device.readers import sqlite
from pipelines.errors import UsageError
from pipelines.simulate.homes import Layout, Usage
from tests.device.driving import (
    LATER,
    LATEST,
    LAYOUTS,
    SESSION,
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

COVERAGE = ("lines_staged", "lines_duplicate", "lines_before_consent", "lines_skipped", "lines_rejected")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    made = tmp_path / "hive"
    made.mkdir()
    return made


@pytest.fixture
def apiary(tmp_path: Path) -> Path:
    return tmp_path / "apiary"


def shipped(apiary: Path, *homes: Path, **other: Any) -> Device:
    made = granted(apiary, *homes, **other)
    made.ship(*homes)
    return made


def counted(made: Device) -> Counter[str]:
    total: Counter[str] = Counter()
    for row in made.sources():
        total.update({name: row[name] for name in (*COVERAGE, "lines_seen", "lines_salvaged", "turn_lines_seen")})
    return total


# Against the simulator's truth ---------------------------------------------------------------------------------------


def usage_of(made: Device) -> Usage:
    """What the warehouse will decide, said in three lines: events count, and steps where no event tells of a turn."""
    turns = made.delivered("llm_turns")
    told = {row["session_id"] for row in turns}
    steps = [r for r in made.delivered("node_steps") if r["step_index"] >= 0 and r["session_id"] not in told]
    ids = {row["record_id"] for row in steps}
    tools = [r for r in made.delivered("tool_calls") if r["origin"] == "event" or r["step_record_id"] in ids]
    rows = [*turns, *steps]
    costs = [row["reported_cost_usd"] for row in turns]
    return Usage(
        turns=len(rows),
        input_tokens=sum(row["input_tokens"] for row in rows),
        output_tokens=sum(row["output_tokens"] for row in rows),
        cache_read_input_tokens=sum(row["cache_read_input_tokens"] or 0 for row in turns),
        cache_write_input_tokens=sum(row["cache_write_input_tokens"] or 0 for row in turns),
        tool_calls=len(tools),
        reported_cost_usd=sum((cost for cost in costs if cost), Decimal(0)),
        unreported_turns=len(rows) - sum(cost is not None for cost in costs),
    )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("seed", [1, 2])
def test_a_simulated_home_is_counted_exactly(home: Path, apiary: Path, layout: Layout, seed: int) -> None:
    truth = simulated(home, layout, seed=seed)
    made = shipped(apiary, home)
    assert usage_of(made) == truth.total
    by_session: dict[str, int] = Counter()
    for row in made.delivered("llm_turns"):
        by_session[row["session_id"]] += row["input_tokens"]
    exact = {name: usage.input_tokens for name, usage in truth.by_session.items() if name in by_session}
    assert by_session == exact
    total = counted(made)
    assert total["lines_rejected"] + total["lines_salvaged"] == truth.torn_lines, "a torn line is counted, not lost"
    tasks = [row for row in made.delivered("tasks") if row["list_kind"] == "progress_db" and row["item"] == "task"]
    assert len(tasks) == sum(truth.tasks_by_status.values())


def test_layouts_of_different_ages_in_one_home_are_each_counted(tmp_path: Path, home: Path, apiary: Path) -> None:
    """Test 26: a home that went through an upgrade holds what both wrote, databases too."""
    truths = []
    for seed, layout in enumerate(LAYOUTS):
        truths.append(simulated(tmp_path / layout, layout, seed=50 + seed))
        shutil.copytree(tmp_path / layout, home, dirs_exist_ok=True)
    made = shipped(apiary, home)
    expected = [truth.total for truth in truths]
    assert usage_of(made) == Usage(*map(sum, zip(*map(astuple, expected), strict=True)))
    tasks = [row for row in made.delivered("tasks") if row["list_kind"] == "progress_db" and row["item"] == "task"]
    assert len(tasks) == sum(sum(truth.tasks_by_status.values()) for truth in truths)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_seen_is_the_sum_of_what_became_of_it(home: Path, apiary: Path, layout: Layout) -> None:
    simulated(home, layout)
    made = shipped(apiary, home)
    rows = [*made.sources(), *made.delivered("device_reports")]
    for row in rows:
        assert row["lines_seen"] == sum(row[name] for name in COVERAGE)
    (report,) = made.delivered("device_reports")
    assert {name: report[name] for name in COVERAGE} == {name: counted(made)[name] for name in COVERAGE}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_second_pass_over_a_quiet_home_finds_nothing(home: Path, apiary: Path, layout: Layout) -> None:
    simulated(home, layout)
    made = shipped(apiary, home)
    before = made.ids()
    made.ship(home)
    (manifest,) = made.manifests()[1:]
    assert {item["table"] for item in manifest["objects"]} == {"device_reports"}
    assert made.ids() == before


# Forks ---------------------------------------------------------------------------------------------------------------


def copied(source: Path, target: Path) -> Path:
    shutil.copytree(source, target)
    return target


def test_a_fork_of_a_fork_counts_each_turn_once_at_its_origin(home: Path, apiary: Path) -> None:
    first = queen_folder(home)
    append(first / "events.jsonl", dump(turn(1), turn(2)))
    child = copied(first, first.with_name(LATER))
    append(child / "events.jsonl", dump(turn(3, session=LATER)))
    grandchild = copied(child, first.with_name(LATEST))
    append(grandchild / "events.jsonl", dump(turn(4, session=LATEST)))
    append(first / "events.jsonl", dump(turn(5)))
    made = shipped(apiary, home)
    owners = sorted((row["iteration"], row["session_id"]) for row in made.delivered("llm_turns"))
    assert owners == [(1, SESSION), (2, SESSION), (3, LATER), (4, LATEST), (5, SESSION)]
    (seen, copies) = (sum(row[f"turn_lines_{kind}"] for row in made.sources()) for kind in ("seen", "duplicate"))
    assert (seen, copies) == (10, 5)


def test_a_forks_copy_that_is_read_before_its_original_gives_the_record_back(home: Path, apiary: Path) -> None:
    """The documented layout copies runtime logs too, and an L3 line names no session."""
    late = flat_folder(home, LATER)
    append(late / "logs" / "tool_logs.jsonl", dump(step(1, tool_calls=[tool()]), step(2)))
    made = shipped(apiary, home)
    assert {row["session_id"] for row in made.delivered("node_steps", "tool_calls")} == {LATER}
    first = flat_folder(home, SESSION)
    append(first / "logs" / "tool_logs.jsonl", dump(step(1, tool_calls=[tool()])))
    append(late / "logs" / "tool_logs.jsonl", dump(step(3)))
    made.ship(home)
    owners = {
        (row["_table"], row.get("step_index")): row["session_id"] for row in made.delivered("node_steps", "tool_calls")
    }
    assert owners == {
        ("node_steps", 1): SESSION, ("node_steps", 2): LATER, ("node_steps", 3): LATER, ("tool_calls", None): SESSION,
    }  # fmt: skip
    all_rows = made.delivered("node_steps", "tool_calls", newest=False)
    assert len(all_rows) == 6, "the correction travels once, and only what must be corrected"


def test_the_order_of_reading_does_not_decide_whose_a_step_is(tmp_path: Path, home: Path) -> None:
    for session in (LATEST, SESSION, LATER):
        append(flat_folder(home, session) / "logs" / "tool_logs.jsonl", dump(step(1)))
    made = shipped(tmp_path / "a", home)
    (row,) = made.delivered("node_steps", newest=False)
    assert row["session_id"] == SESSION


def test_a_graph_run_in_its_log_and_in_the_queens_events_is_both_and_told_apart(home: Path, apiary: Path) -> None:
    append(queen_folder(home) / "events.jsonl", dump(turn(1) | {"stream_id": "default", "node_id": "intake"}))
    run = home / "agents" / "leads" / "worker" / "sessions" / SESSION / "logs"
    append(run / "tool_logs.jsonl", dump(step(0)))
    made = shipped(apiary, home)
    (by_event,), (by_step,) = made.delivered("llm_turns"), made.delivered("node_steps")
    assert by_event["session_id"] == by_step["session_id"] == SESSION, "the warehouse lets the event win by this"
    assert by_event["agent_role"] == "graph"


def test_an_event_in_the_workers_file_and_in_the_queens_is_one(home: Path, apiary: Path) -> None:
    """Test 19: whichever of the two files is read first."""
    worker = "session_20260504_101600_00000001"
    queen = home / "colonies" / "leads" / "queens" / "queen_technology" / "sessions" / SESSION
    own = home / "colonies" / "leads" / "workers" / worker
    made_event = turn(1, session=worker) | {"stream_id": f"worker:{worker}", "colony_id": SESSION}
    report = event("subagent_report", {"worker_id": worker, "status": "success"}, session=worker)
    append(queen / "events.jsonl", dump(made_event, report))
    append(own / "events.jsonl", dump(report, made_event))
    made = shipped(apiary, home)
    assert len(made.delivered("llm_turns", newest=False)) == 1
    assert len(made.delivered("agent_runs", newest=False)) == 1
    assert sum(row["turn_lines_duplicate"] for row in made.sources()) == 1


# Files that change ---------------------------------------------------------------------------------------------------


def iterations(made: Device) -> list[int]:
    return sorted(row["iteration"] for row in made.delivered("llm_turns", newest=False))


def test_the_janitor_rewrites_a_file_between_two_passes(home: Path, apiary: Path) -> None:
    noise = [event("context_usage_updated", {"usage": number}) for number in range(30)]
    turns = [turn(number) for number in range(20)]
    path = queen_folder(home) / "events.jsonl"
    append(path, dump(*(line for pair in zip(turns, noise, strict=False) for line in pair)))
    made = shipped(apiary, home)
    aside = path.with_name("aside")
    again = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in turns)
    aside.write_text(again)
    aside.replace(path)
    append(path, dump(turn(20)))
    made.ship(home)
    assert iterations(made) == [*range(21)]
    assert max(row["generation"] for row in made.sources("events")) == 1


def test_a_moved_session_is_the_same_session(home: Path, apiary: Path) -> None:
    folder = home / "agents" / "queens" / "default" / "sessions" / SESSION
    append(folder / "events.jsonl", dump(turn(1)))
    append(folder / "logs" / "tool_logs.jsonl", dump(step(1)))
    made = shipped(apiary, home)
    target = home / "queens" / "queen_technology" / "sessions" / SESSION
    target.parent.mkdir(parents=True)
    folder.rename(target)
    append(target / "events.jsonl", dump(turn(2)))
    made.ship(home)
    assert iterations(made) == [1, 2]
    assert len(made.delivered("node_steps", newest=False)) == 1


def test_a_file_that_is_replaced_by_another_is_read_from_its_start(home: Path, apiary: Path) -> None:
    path = append(queen_folder(home) / "events.jsonl", dump(turn(1)))
    made = shipped(apiary, home)
    path.unlink()
    append(path, dump(turn(5), turn(6)))
    made.ship(home)
    assert iterations(made) == [1, 5, 6]


def test_a_summary_gone_stale_is_sent_once_and_a_new_version_again(home: Path, apiary: Path) -> None:
    logs = flat_folder(home) / "logs"
    found = {"run_id": SESSION, "status": "success", "trace_id": "a" * 32, "started_at": "2026-05-04T10:00:00+00:00"}
    (logs / "summary.json").write_text(json.dumps(found))
    made = shipped(apiary, home)
    append(logs / "tool_logs.jsonl", dump(step(1)))  # a second run that crashed: no new summary
    made.ship(home)
    os.utime(logs / "summary.json")
    made.ship(home)
    assert len(made.delivered("run_summaries", newest=False)) == 1
    (logs / "summary.json").write_text(json.dumps({**found, "trace_id": "c" * 32, "total_input_tokens": 7}))
    made.ship(home)
    assert {row["trace_id"] for row in made.delivered("run_summaries")} == {"a" * 32, "c" * 32}


def test_lines_of_an_early_version_keep_their_identity_over_passes_and_devices(tmp_path: Path, home: Path) -> None:
    path = flat_folder(home) / "logs" / "tool_logs.jsonl"
    append(path, dump(step(1, span=False), step(2, span=False), ending="")[:-1] + b"}")
    append(path, b"")
    one = granted(tmp_path / "one", home)
    one.ship(home)
    append(path, b"\n" + dump(step(3, span=False))[:-1])
    one.ship(home)
    append(path, b"\n" + dump(step(3, span=False)))
    one.ship(home)
    other = shipped(tmp_path / "two", home)
    steps = {identity for table, identity in one.ids() if table == "node_steps"}
    assert steps == {identity for table, identity in other.ids() if table == "node_steps"}
    assert len(steps) == 4, "two equal lines are two steps"


def test_an_observation_is_made_when_something_changes_and_an_a_b_a_stays_visible(home: Path, apiary: Path) -> None:
    """Test 30: pending, completed, pending, each seen by a pass of its own."""
    path = queen_folder(home) / "tasks.json"

    def write(status: str) -> None:
        task = {"id": 1, "subject": "secret", "status": status, "created_at": 1777892399.5, "blocks": [2, 3]}
        path.write_text(json.dumps({"meta": {}, "tasks": [task]}))

    write("pending")
    made = shipped(apiary, home)
    for status in ("completed", "completed", "pending"):
        write(status)
        os.utime(path)
        made.ship(home)
    rows = sorted(made.delivered("tasks"), key=lambda row: int(row["observation"]))
    assert [(row["observation"], row["status"]) for row in rows] == [(0, "pending"), (1, "completed"), (2, "pending")]
    assert rows[0]["blocks_count"] == 2
    assert (rows[0]["blocks_ids"], rows[0]["blocked_by_ids"]) == ("2,3", None)


# Bad files -----------------------------------------------------------------------------------------------------------


def outcome(made: Device, kind: str) -> str:
    (row,) = made.sources(kind)
    return str(row["outcome"])


@pytest.mark.parametrize(
    "tasks", [5, "text", None, {"a": 1}, [5, None, [], {"id": None}, {"id": True}, {"id": [1]}, {"id": {}}]]
)
def test_a_task_list_of_an_odd_shape_holds_no_task(home: Path, apiary: Path, tasks: Any) -> None:
    folder = queen_folder(home)
    (folder / "tasks.json").write_text(json.dumps({"tasks": tasks}))
    append(folder / "events.jsonl", dump(turn(1)))
    made = shipped(apiary, home)
    assert made.delivered("tasks") == []
    assert iterations(made) == [1]


@pytest.mark.parametrize("content", [b"", b"\x00" * 64, b'{"tasks": [', b"[]", b"5", b"\xff\xfe", b"[" * 100_000])
def test_a_small_file_that_is_torn_is_counted_and_costs_only_itself(home: Path, apiary: Path, content: bytes) -> None:
    folder = flat_folder(home)
    for path in (folder / "tasks.json", folder / "meta.json", folder / "state.json", folder / "logs" / "summary.json"):
        path.write_bytes(content)
    append(folder / "events.jsonl", dump(turn(1)))
    made = shipped(apiary, home)
    assert {kind: outcome(made, kind) for kind in ("task_list", "meta", "state", "l1")} == dict.fromkeys(
        ("task_list", "meta", "state", "l1"), "corrupt"
    )
    assert iterations(made) == [1]


def test_a_small_file_that_is_large_is_not_read(home: Path, apiary: Path) -> None:
    folder = queen_folder(home)
    with (folder / "tasks.json").open("wb") as file:
        file.truncate(17 << 20)
    made = shipped(apiary, home)
    assert outcome(made, "task_list") == "too_large"


def test_a_link_a_pipe_a_folder_and_a_second_name_in_allowed_positions(
    home: Path, apiary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = append(tmp_path / "outside.jsonl", dump(turn(9)))
    makers = {
        "link": lambda path: path.symlink_to(outside),
        "pipe": os.mkfifo,
        "folder": Path.mkdir,
        "hard": lambda path: os.link(outside, path),
    }
    names = ("events.jsonl", "runs.jsonl", "meta.json", "state.json", "tasks.json", "logs/tool_logs.jsonl",
             "logs/details.jsonl", "logs/summary.json")  # fmt: skip
    for number, make in enumerate(makers.values()):
        folder = flat_folder(home, f"session_20260504_10150{number}_0000000{number}")
        for name in names:
            make(folder / name)
    append(flat_folder(home) / "events.jsonl", dump(turn(1)))
    monkeypatch.setattr("os.getuid", lambda: outside.stat().st_uid + 1)  # the second name is of somebody else's file
    made = shipped(apiary, home)
    assert iterations(made) == [1]
    outcomes = Counter(row["outcome"] for row in made.sources())
    assert outcomes["unreadable"] == len(makers) * len(names)


def test_a_file_cut_off_and_completed_later_is_read_whole(home: Path, apiary: Path) -> None:
    """A copy that keeps the old times and stops in the middle of a line, then the rest of it."""
    log = append(queen_folder(home) / "events.jsonl", dump(*map(turn, range(3))))
    whole = log.read_bytes()
    old = log.stat().st_mtime - 3 * 86_400
    log.write_bytes(whole[: len(whole) - 40])
    os.utime(log, (old, old))
    made = shipped(apiary, home)
    assert iterations(made) == [0, 1]
    assert [row["lines_rejected"] for row in made.sources("events")] == [1]
    made.ship(home)
    assert len(made.sources("events")) == 1, "a torn line is counted once"
    log.write_bytes(whole)
    os.utime(log, (old + 60, old + 60))
    made.ship(home)
    assert iterations(made) == [0, 1, 2]


def test_a_file_without_permission_is_counted_and_read_when_it_may_be(
    home: Path, apiary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = append(queen_folder(home) / "events.jsonl", dump(turn(1)))
    append(queen_folder(home, LATER) / "events.jsonl", dump(turn(2)))
    really = os.open

    def refusing(path: Any, *rest: Any, **more: Any) -> int:
        if Path(path) == closed:
            raise PermissionError(13, "Permission denied")
        return really(path, *rest, **more)

    made = granted(apiary, home)
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refusing)
        made.ship(home)
    assert iterations(made) == [2]
    assert sorted(row["outcome"] for row in made.sources("events")) == ["read", "unreadable"]
    made.ship(home)
    assert iterations(made) == [1, 2]


def test_a_disk_error_in_the_middle_of_a_file_loses_and_doubles_nothing(
    home: Path, apiary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(queen_folder(home) / "events.jsonl", dump(*map(turn, range(50))))
    append(queen_folder(home, LATER) / "events.jsonl", dump(turn(90)))
    monkeypatch.setattr(lines, "CHUNK", 2000)
    really, calls = lines._read_chunk, iter(range(1000))

    def failing(*given: Any, **more: Any) -> lines.Chunk:
        if next(calls) == 3:
            raise OSError(5, "Input/output error")
        return really(*given, **more)

    made = granted(apiary, home)
    with monkeypatch.context() as patch:
        patch.setattr(lines, "_read_chunk", failing)
        made.ship(home)
    assert 0 < len(iterations(made)) < 51
    assert 90 in iterations(made), "the other file is read"
    made.ship(home)
    assert iterations(made) == [*range(50), 90]


def colony(home: Path, name: str = "leads") -> Path:
    folder = home / "colonies" / name
    (folder / "data").mkdir(parents=True)
    (folder / "metadata.json").write_text(json.dumps({"queen_session_id": SESSION, "source_session_id": LATER}))
    return folder


def test_a_corrupt_database_is_counted_and_the_rest_goes_on(home: Path, apiary: Path) -> None:
    (colony(home) / "data" / "progress.db").write_bytes(b"no database" * 500)
    (colony(home, "other") / "data" / "progress.db").write_bytes(b"")
    append(queen_folder(home) / "events.jsonl", dump(turn(1)))
    made = shipped(apiary, home)
    assert sorted(row["outcome"] for row in made.sources("progress_db")) == ["corrupt", "unknown_layout"]
    assert iterations(made) == [1]
    assert len(made.delivered("colonies")) == 1


def test_a_busy_database_is_read_in_the_next_pass(home: Path, apiary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = colony(home) / "data" / "progress.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.executescript(
            "CREATE TABLE tasks (id TEXT, status TEXT); CREATE TABLE steps (id TEXT, task_id TEXT);"
            "CREATE TABLE sop_checklist (id TEXT, task_id TEXT); INSERT INTO tasks VALUES ('1', 'done')"
        )
        monkeypatch.setattr(sqlite, "MAX_IN_MEMORY", 0)
        monkeypatch.setattr(sqlite, "BUSY_MILLISECONDS", 10)
        writer.execute("BEGIN EXCLUSIVE")
        made = shipped(apiary, home)
        assert outcome(made, "progress_db") == "unreadable"
        writer.execute("COMMIT")
    made.ship(home)
    assert [row["status"] for row in made.delivered("tasks")] == ["done"]


def test_a_shadow_colony_without_metadata_is_none(home: Path, apiary: Path) -> None:
    shadow = home / "colonies" / SESSION
    shadow.mkdir(parents=True)
    (shadow / "tasks.json").write_text(json.dumps({"tasks": [{"id": 1, "status": "pending"}]}))
    made = shipped(apiary, home)
    assert made.delivered("colonies", "tasks") == []


def test_a_line_of_33_megabytes_costs_itself(home: Path, apiary: Path) -> None:
    path = queen_folder(home) / "events.jsonl"
    append(path, dump(turn(1)))
    with path.open("r+b") as file:
        file.seek(33 << 20, os.SEEK_END)
        file.write(b"\n" + dump(turn(2)))
    made = shipped(apiary, home)
    assert iterations(made) == [1, 2]
    assert counted(made)["lines_rejected"] == 1


@pytest.mark.parametrize(
    "line",
    [
        b'{"type": "llm_turn_complete", "data": {"input_tokens": 1e99999999999999999999}, "timestamp": "2026-05-04"}',
        b'{"type": "llm_turn_complete", "data": {"cost_usd": 1e999999}, "timestamp": "0001-01-01T00:00:00+23:59"}',
        b'{"type": "tool_call_completed", "data": 5, "timestamp": {}, "execution_id": [], "stream_id": {}}',
        b'{"type": "llm_turn_complete", "data": {"a": ' + b"9" * 5000 + b'}, "timestamp": null}',
        b'{"type": "llm_turn_complete", "data": ' + b"[" * 5000 + b"]" * 5000 + b', "timestamp": ""}',
    ],
)
def test_a_hostile_line_costs_that_line(home: Path, apiary: Path, line: bytes) -> None:
    append(queen_folder(home) / "events.jsonl", dump(turn(1)) + line + b"\n" + dump(turn(2)))
    append(flat_folder(home, LATER) / "logs" / "tool_logs.jsonl", line + b"\n" + dump(step(1)))
    made = shipped(apiary, home)
    assert iterations(made) == [1, 2]
    assert len(made.delivered("node_steps")) == 1
    total = counted(made)
    assert total["lines_seen"] == 5


# Homes ---------------------------------------------------------------------------------------------------------------


def test_an_empty_home_is_a_run_with_nothing_in_it(home: Path, apiary: Path) -> None:
    made = shipped(apiary, home)
    (report,) = made.delivered()
    assert (report["_table"], report["lines_seen"], report["sources"], report["homes"]) == ("device_reports", 0, 0, 1)


def test_a_home_that_is_a_file_or_is_not_there_is_wrong_use(tmp_path: Path, apiary: Path) -> None:
    made = granted(apiary)
    (tmp_path / "file").write_text("")
    for path, word in ((tmp_path / "file", "is a file"), (tmp_path / "nowhere", "does not exist")):
        with pytest.raises(UsageError, match=word):
            made.ship(path)
    assert made.manifests() == []


def test_a_home_nobody_may_enter_is_a_failure(home: Path, apiary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = granted(apiary)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(DeviceError, match="permissions"):
        made.ship(home)


def test_the_homes_of_accounts_are_read_with_the_shared_one(home: Path, apiary: Path) -> None:
    append(queen_folder(home) / "events.jsonl", dump(turn(1)))
    append(queen_folder(home / "users" / "0a1b", LATER) / "events.jsonl", dump(turn(2, session=LATER)))
    made = shipped(apiary, home)
    assert iterations(made) == [1, 2]
    (report,) = made.delivered("device_reports")
    assert report["homes"] == 2


# Devices -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_two_devices_of_a_tenant_give_the_same_records_the_same_ids(tmp_path: Path, home: Path, layout: Layout) -> None:
    """A cloned disk: another device, another folder. Another user is an observer of their own (decision 0035) and the
    rest is the same; with another key what counts tokens has the same."""
    simulated(home, layout)
    clone = tmp_path / "clone"
    shutil.copytree(home, clone)
    one = shipped(tmp_path / "one", home, key=b"1" * 32)
    other = shipped(tmp_path / "two", clone, key=b"1" * 32)
    assert one.ids() == other.ids()
    colleague = shipped(tmp_path / "colleague", clone, key=b"1" * 32, user="ben")
    assert {row[0] for row in one.ids() ^ colleague.ids()} == {"sessions"}
    keyless = {table.name for table in wire.TABLES if table.is_keyless}
    alone = shipped(tmp_path / "three", clone, key=b"2" * 32, user="cy")
    assert {row for row in one.ids() if row[0] in keyless} == {row for row in alone.ids() if row[0] in keyless}
    assert len(one.ids()) > 300
    assert {row["queen_name"] for row in one.delivered("sessions")} != {
        row["queen_name"] for row in alone.delivered("sessions")
    }


def test_another_tenant_gives_other_ids(tmp_path: Path, home: Path) -> None:
    append(queen_folder(home) / "events.jsonl", dump(turn(1)))
    one, other = shipped(tmp_path / "one", home), shipped(tmp_path / "two", home, tenant="globex")
    assert not one.ids() & other.ids()


def test_a_session_keeps_the_user_who_was_enrolled_when_it_was_first_seen(home: Path, apiary: Path) -> None:
    append(queen_folder(home) / "events.jsonl", dump(turn(1)))
    made = shipped(apiary, home)
    device(apiary, user="ben")
    (queen_folder(home) / "meta.json").write_text(json.dumps({"queen_id": "queen_legal"}))
    append(queen_folder(home, LATER) / "events.jsonl", dump(turn(2, session=LATER)))
    made.ship(home)
    users = {(row["session_id"], row["user_id"]) for row in made.delivered("sessions")}
    assert users == {(SESSION, "ada"), (LATER, "ben")}


# What is never opened ------------------------------------------------------------------------------------------------

NAMES = {"events.jsonl", "runs.jsonl", "meta.json", "state.json", "tasks.json", "tool_logs.jsonl", "details.jsonl",
         "summary.json", "metadata.json", "worker.json", "progress.db"}  # fmt: skip
FORBIDDEN = {"conversations", "artifacts", "credentials", "secrets", "failed_requests", "llm_logs", "event_logs",
             "memories", ".message_index", "mcp_registry", "seed_conversation", "profiles"}  # fmt: skip
AUDIT = """
import sys
from pathlib import Path
opened = []
def hook(name, arguments):
    if name in ("open", "sqlite3.connect") and isinstance(arguments[0], (str, bytes)):
        opened.append(arguments[0] if isinstance(arguments[0], str) else arguments[0].decode())
sys.addaudithook(hook)
from tests.device.driving import Device
from pipelines.home import Home
hive = Path(sys.argv[1])
device = Device(Home(Path(sys.argv[2])), sys.argv[3])
for act in sys.argv[4:]:
    if act == "exclude":
        device.withdraw()
        device.grant([hive], history="exclude")
    else:
        getattr(device, act)(hive)
print("\\n".join(sorted({path for path in opened if sys.argv[1] in path})))
"""


def opened(made: Device, home: Path, *acts: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", AUDIT, str(home), str(made.home.root), made.store_url, *acts], capture_output=True,
         text=True,
        check=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    paths = [line.removeprefix("file:").partition("?")[0] for line in done.stdout.splitlines()]
    return {Path(path).relative_to(home).as_posix() for path in paths}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nothing_but_the_allowed_files_is_ever_opened(home: Path, apiary: Path, layout: Layout) -> None:
    simulated(home, layout)
    for trap in ("secrets/credential_key", "configuration.json", "sentinel_secret", "colonies/leads/tracker/tracker.db",
                 "colonies/leads/colony.db", f"sessions/{SESSION}/data/progress.db",
                 f"sessions/{SESSION}/artifacts/a.json",
                 f"queens/q/sessions/{SESSION}/data/events.jsonl",
                 f"queens/q/sessions/{SESSION}/summary.json"):  # fmt: skip
        append(home / trap, b"{}")
    made = granted(apiary, home)
    found = opened(made, home, "preview", "ship", "ship", "exclude", "ship")
    assert len(found) > 20, "the hook must have seen the reading"
    for name in found:
        *folders, last = name.split("/")
        assert last in NAMES, name
        assert not FORBIDDEN & set(folders), name
        assert "data" not in folders or last == "progress.db", name
        assert last != "summary.json" or folders[-1] == "logs" or "runs" in folders, f"{name} is a cache of the chat"
        assert last != "progress.db" or folders[0] == "colonies", name
    assert {"configuration.json"} <= {path.name for path in home.rglob("*")}


def test_a_torn_meta_keeps_what_was_seen_before(home: Path, apiary: Path) -> None:
    folder = home / "agents/queens/queen_technology/sessions" / SESSION
    folder.mkdir(parents=True)
    meta = folder / "meta.json"
    meta.write_text(json.dumps({"queen_id": "queen_technology", "created_at": 1777733694.5}))
    made = granted(apiary, home)
    made.ship(home)
    meta.write_text('{"queen_id": "queen_te')
    made.ship(home)
    meta.write_text(json.dumps({"queen_id": "queen_technology", "created_at": 1777733694.5, "phase": "working"}))
    made.ship(home)
    rows = [(row["evidence"], row["queen_name"], row["phase"]) for row in made.delivered("sessions")]
    assert sorted(rows, key=str) == [("meta", "queen_technology", "working"), ("meta", "queen_technology", None)]


def test_a_colony_is_known_by_what_it_has(home: Path, apiary: Path) -> None:
    """By its queen's session; else by the session it came from, which worker.json may tell; a shadow is none."""
    for name, metadata, worker in (
        ("whole", {"queen_session_id": SESSION}, {}),
        ("early", {"created_at": "2026-05-02T10:00:33+00:00"}, {"spawned_from": LATER, "queen_id": "queen_growth"}),
        ("shadow", {}, {"spawned_from": SESSION}),
    ):
        folder = home / "colonies" / name
        folder.mkdir(parents=True)
        if metadata:
            (folder / "metadata.json").write_text(json.dumps(metadata))
        (folder / "worker.json").write_text(json.dumps(worker))
    made = granted(apiary, home)
    made.ship(home)
    found = {
        row["queen_session_id"]: (row["source_session_id"], row["queen_name"]) for row in made.delivered("colonies")
    }
    assert found == {SESSION: (None, None), LATER: (LATER, "queen_growth")}
