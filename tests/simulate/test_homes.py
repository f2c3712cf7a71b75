"""A small reader of its own must find in the files exactly what the generator says it put there.

Nothing here uses the product's readers: they are tested against the same truths elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sqlite3
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Context, Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from pipelines.simulate.fleet import demo_fleet, merge
from pipelines.simulate.homes import HomeSpec, Layout, Truth, Usage, write_home

LAYOUTS: tuple[Layout, ...] = ("v2", "v3", "doc")
EXACT = Context(prec=80)
RECORD_START = re.compile(r'\{"(?:type|node_id|run_id)": ')
STATUS_EVENTS = {
    "queen_phase_changed",
    "node_stalled",
    "node_tool_doom_loop",
    "stream_ttft_exceeded",
    "node_retry",
    "judge_verdict",
    "subagent_report",
    "colony_created",
    "worker_colony_loaded",
    "context_usage_updated",
    "execution_completed",
    "trigger_fired",
    "task_updated",
    "colony_fork_marker",
    "tool_call_started",
    "client_output_delta",
}


def spec_of(layout: Layout, seed: int, **other: Any) -> HomeSpec:
    zone = ("America/Los_Angeles", "Europe/Berlin", "Asia/Kolkata", "Australia/Lord_Howe", "UTC")[seed % 5]
    given: dict[str, Any] = {"first_day": date(2026, 3, 27), "timezone": zone, **other}
    return HomeSpec(layout=layout, seed=seed, **given)


def records(path: Path) -> tuple[list[dict[str, Any]], int]:
    """All whole records of a line file, and how many fragments were lost."""
    found, torn = [], 0
    for raw in path.read_bytes().split(b"\n"):
        line = raw.decode("utf-8", errors="replace")
        if not line.strip():
            continue
        for start in (0, *(match.start() for match in RECORD_START.finditer(line))):
            try:
                found.append(json.loads(line[start:], parse_float=str))
            except ValueError:
                continue
            torn += start > 0
            break
        else:
            torn += 1
    return found, torn


def usage(data: dict[str, Any], *, tools: int) -> Usage:
    cost = Decimal(data.get("cost_usd", "0"))
    return Usage(
        turns=1,
        input_tokens=data["input_tokens"],
        output_tokens=data["output_tokens"],
        cache_read_input_tokens=data.get("cached_tokens", 0),
        cache_write_input_tokens=data.get("cache_creation_tokens", 0),
        tool_calls=tools,
        reported_cost_usd=cost,
        unreported_turns=0 if cost else 1,
    )


@dataclass
class Found:
    """What the reader of this test saw."""

    total: Usage = field(default_factory=Usage)
    by_model: defaultdict[str, Usage] = field(default_factory=lambda: defaultdict(Usage))
    by_session: defaultdict[str, Usage] = field(default_factory=lambda: defaultdict(Usage))
    by_kind: defaultdict[str, Usage] = field(default_factory=lambda: defaultdict(Usage))
    by_day: defaultdict[date, Usage] = field(default_factory=lambda: defaultdict(Usage))
    raw_turn_lines: int = 0
    torn_lines: int = 0
    events: set[str] = field(default_factory=set)

    def add(self, seen: Usage, *, model: str, session: str, kind: str, day: date) -> None:
        self.total += seen
        self.by_model[model] += seen
        self.by_session[session] += seen
        self.by_kind[kind] += seen
        self.by_day[day] += seen


def read(root: Path, zone: str) -> Found:
    found = Found()
    known: set[tuple[Any, ...]] = set()
    tool_ids: set[str] = set()
    with_events: set[str] = set()
    for path in sorted(root.rglob("events.jsonl")):
        lines, torn = records(path)
        found.torn_lines += torn
        open_tools: defaultdict[tuple[str, str], int] = defaultdict(int)
        for event in lines:
            found.events.add(event["type"])
            if event["type"] not in {"llm_turn_complete", "tool_call_completed"}:
                continue
            speaker = (event["execution_id"], event["stream_id"])
            if event["type"] == "tool_call_completed":
                if event["data"]["tool_use_id"] not in tool_ids:
                    tool_ids.add(event["data"]["tool_use_id"])
                    open_tools[speaker] += 1
                continue
            found.raw_turn_lines += 1
            with_events.add(event["execution_id"])
            key = (*speaker, event["timestamp"], event["data"]["iteration"])
            if key in known:
                continue
            known.add(key)
            at = datetime.fromisoformat(event["timestamp"]).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
            kind = {"queen": "queen", "default": "agent_run"}.get(event["stream_id"], "worker")
            seen = usage(event["data"], tools=open_tools.pop(speaker, 0))
            model = event["data"]["model"] or "unknown"
            found.add(seen, model=model, session=event["execution_id"], kind=kind, day=at.date())
        assert not open_tools, path
    spans: set[str] = set()
    for path in sorted(root.rglob("tool_logs.jsonl")):
        lines, torn = records(path)
        found.torn_lines += torn
        session = path.parent.parent.name if path.parent.name == "logs" else path.parent.name
        for step in lines:
            if step["step_index"] < 0 or session in with_events:
                continue
            found.raw_turn_lines += 1
            if step["span_id"] in spans:
                continue
            spans.add(step["span_id"])
            starts = [call["start_timestamp"] for call in step["tool_calls"]]
            changed = datetime.fromtimestamp(path.stat().st_mtime, UTC)
            at = datetime.fromisoformat(starts[0]) if starts else changed
            assert at.date() == changed.date()
            tokens = {name: step[name] for name in ("input_tokens", "output_tokens")}
            seen = usage(tokens, tools=len(starts))
            found.add(seen, model="unknown", session=session, kind="agent_session", day=at.date())
    for path in root.rglob("details.jsonl"):
        found.torn_lines += records(path)[1]
    return found


def assert_same(found: Found, truth: Truth) -> None:
    assert found.total == truth.total
    assert dict(found.by_model) == truth.by_model
    assert dict(found.by_session) == truth.by_session
    assert dict(found.by_kind) == truth.by_agent_kind
    assert dict(found.by_day) == truth.by_utc_day
    assert found.raw_turn_lines == truth.raw_turn_lines
    assert found.torn_lines == truth.torn_lines


def all_bytes(root: Path) -> bytes:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    names = "\n".join(str(path.relative_to(root)) for path in files).encode()
    return names + b"".join(path.read_bytes() for path in files)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("seed", range(6))
def test_an_independent_reader_finds_the_truth(tmp_path: Path, layout: Layout, seed: int) -> None:
    spec = spec_of(layout, seed)
    truth = write_home(tmp_path / "home", spec)
    assert_same(read(tmp_path / "home", spec.timezone), truth)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("days", "queens", "turns"), [(1, 1, 1), (2, 5, 3), (1, 2, 40)])
def test_size_does_not_change_what_is_true(tmp_path: Path, layout: Layout, days: int, queens: int, turns: int) -> None:
    spec = spec_of(layout, 3, days=days, queens_per_day=queens, turns_per_session=turns)
    truth = write_home(tmp_path, spec)
    assert_same(read(tmp_path, spec.timezone), truth)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_home_has_the_whole_cast(tmp_path: Path, layout: Layout) -> None:
    spec = spec_of(layout, 2, days=1, turns_per_session=1)
    truth = write_home(tmp_path, spec)
    found = read(tmp_path, spec.timezone)
    assert found.events >= STATUS_EVENTS
    assert len(truth.by_model) == 9
    assert set(truth.by_agent_kind) == {"queen", "worker", "agent_session"} | (
        {"agent_run"} if layout == "v2" else set()
    )
    assert found.raw_turn_lines > truth.total.turns
    assert 0 < truth.total.unreported_turns < truth.total.turns
    assert truth.lost_turns >= 4
    lines = b"".join(path.read_bytes() for name in ("events", "tool_logs") for path in tmp_path.rglob(f"{name}.jsonl"))
    for trap in (b"NaN", b"Infinity", b"-Infinity", b"\\udce9", b"\\u0000", b"\r\n", b"\n\n", "\u2028".encode()):
        assert trap in lines, trap
    statuses = {json.loads(path.read_text())["status"] for path in tmp_path.rglob("state.json") if layout != "v2"}
    assert statuses == (set() if layout == "v2" else {"completed", "failed", "paused", "cancelled", "active"})
    assert list(tmp_path.rglob("summary.json"))
    assert list(tmp_path.rglob("state.json.tmp"))
    assert list(tmp_path.glob("agents/*/runtime_logs/runs/*/summary.json"))
    assert list(tmp_path.glob("agents/*/graphs/*/sessions/*/logs/tool_logs.jsonl"))
    assert list(tmp_path.glob("event_logs/*.jsonl"))
    assert list(tmp_path.glob("llm_logs/*.jsonl"))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_parents_are_told_by_the_files(tmp_path: Path, layout: Layout) -> None:
    truth = write_home(tmp_path, spec_of(layout, 4))
    parents: dict[str, str] = {}
    for path in tmp_path.rglob("events.jsonl"):
        for event in records(path)[0]:
            if event["stream_id"].startswith("worker:"):
                parents[event["stream_id"].removeprefix("worker:")] = event["colony_id"]
    for path in tmp_path.rglob("meta.json"):
        meta = json.loads(path.read_text())
        if "forked_from" in meta:
            parents[path.parent.name.partition(".")[0]] = meta["forked_from"]  # also of a copy that was put aside
    assert parents == truth.parents
    forks = {child for child, parent in parents.items() if parent in parents}
    assert forks, "a fork of a fork, or its workers"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_wal_holds_what_became_of_the_tasks(tmp_path: Path, layout: Layout) -> None:
    truth = write_home(tmp_path / "home", spec_of(layout, 5))
    counted: defaultdict[str, int] = defaultdict(int)
    stale: defaultdict[str, int] = defaultdict(int)
    for number, path in enumerate(sorted((tmp_path / "home").rglob("progress.db"))):
        for wal, counts in ((True, counted), (False, stale)):
            copied = tmp_path / f"{number}-{wal}.db"
            shutil.copy(path, copied)
            if wal and (log := path.with_name("progress.db-wal")).exists():
                assert log.stat().st_size > 0
                shutil.copy(log, f"{copied}-wal")
            database = sqlite3.connect(copied)
            for (status,) in database.execute("SELECT status FROM tasks"):
                counts[status] += 1
            database.close()
    assert dict(counted) == truth.tasks_by_status
    assert {"pending", "claimed", "done", "failed", "in_progress", "completed", "started"} < set(counted)
    assert stale != counted


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [1, 3])
def test_private_strings_lie_in_the_home(tmp_path: Path, layout: Layout, size: int) -> None:
    secrets = ("planted-secret-0001", "planted secret, with a space")
    spec = spec_of(layout, size, days=size, turns_per_session=size, secrets=secrets)
    truth = write_home(tmp_path, spec)
    content = all_bytes(tmp_path)
    assert set(secrets) <= set(truth.private)
    missing = [text for text in truth.private if text.encode() not in content]
    assert not missing
    assert content.count(secrets[0].encode()) > 500


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_spec_gives_the_same_bytes(tmp_path: Path, layout: Layout) -> None:
    truths, prints = [], []
    for name in ("one", "two"):
        root = tmp_path / name
        truths.append(write_home(root, spec_of(layout, 7)))
        files = {
            str(path.relative_to(root)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
            for path in root.rglob("*")
            if path.is_file() and ".db" not in path.name
        }
        prints.append(files)
    assert truths[0] == truths[1]
    assert prints[0] == prints[1]
    other = write_home(tmp_path / "three", spec_of(layout, 8))
    assert other.total != truths[0].total


def test_a_rewritten_file_keeps_the_turns(tmp_path: Path) -> None:
    write_home(tmp_path, spec_of("v3", 6))
    rewritten = [lock.with_name("events.jsonl") for lock in tmp_path.rglob(".janitor.lock")]
    assert rewritten
    for path in rewritten:
        kinds = [event["type"] for event in records(path)[0]]
        assert "llm_turn_complete" in kinds
        assert "context_usage_updated" not in kinds


def test_a_split_worker_repeats_only_its_lifecycle(tmp_path: Path) -> None:
    truth = write_home(tmp_path, spec_of("v3", 9))
    split = list(tmp_path.glob("colonies/*/workers/*/events.jsonl"))
    assert len(split) == 2
    for path in split:
        worker = path.parent.name
        queen = next(tmp_path.rglob(f"{truth.parents[worker]}/events.jsonl"))
        in_queen = {event["type"] for event in records(queen)[0] if event["stream_id"] == f"worker:{worker}"}
        in_own = {event["type"] for event in records(path)[0]}
        assert "llm_turn_complete" in in_own - in_queen
        assert {"node_loop_started", "subagent_report"} <= in_own & in_queen


def test_the_fleet_is_mixed_and_its_truths_add_up(tmp_path: Path) -> None:
    fleet = demo_fleet(last_day=date(2026, 4, 2))
    assert len({device.tenant for device in fleet}) == 3
    assert len({device.name for device in fleet}) == len(fleet) == 6
    assert {device.home.layout for device in fleet} == set(LAYOUTS)
    assert len({device.home.timezone for device in fleet}) >= 5
    name = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
    assert all(name.fullmatch(text) for device in fleet for text in (device.tenant, device.user, device.region))
    truths = []
    for device in fleet:
        truths.append(write_home(tmp_path / device.name, device.home))
        assert_same(read(tmp_path / device.name, device.home.timezone), truths[-1])
    whole = merge(truths)
    assert whole.total.turns == sum(truth.total.turns for truth in truths)
    assert sum(seen.turns for seen in whole.by_utc_day.values()) == whole.total.turns
    assert whole.total.reported_cost_usd == EXACT.create_decimal(sum(t.total.reported_cost_usd for t in truths))
    assert len(whole.by_session) == sum(len(truth.by_session) for truth in truths)
    assert len(whole.private) == len(set(whole.private))
