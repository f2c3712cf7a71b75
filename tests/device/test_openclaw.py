"""OpenClaw's homes: each response once, in both eras and whatever copies there are; keys and prompts are never read."""

import json
import shutil
import sqlite3
import tarfile
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from pipelines.device import lines
from pipelines.device.clock import Clock
from pipelines.device.lines import UnreadableError
from pipelines.device.readers import sqlite
from pipelines.device.readers.base import At, Setting
from pipelines.device.readers.openclaw import databases
from pipelines.device.readers.openclaw.runtime import OPENCLAW
from pipelines.simulate.openclaw import OpenClawSpec
from tests.device.driving import Device, Json, Row, counted_exactly, device, granted
from tests.samples import SAMPLES, needs

SAMPLE = SAMPLES / "openclaw-home.tar.gz"
PUBLIC = SAMPLES / "public" / "deja-vu" / "openclaw"
FIRST, SECOND, THIRD = (f"{n}0000000-0000-4000-8000-00000000000{n}" for n in (1, 2, 3))
MADE = "2026-10-22T09:00:00.000Z"


def response(number: int, *, session: str = FIRST, at: int = 1_792_660_000_000, **other: Any) -> Json:
    """An entry with a response; each number is another one."""
    usage = {
        "input": 100 + number, "output": 10, "cacheRead": 1000, "cacheWrite": 5, "reasoningTokens": 3,
        "totalTokens": 1115 + number, "cost": {"input": 0.1, "total": 0.125},
    }  # fmt: skip
    message = {
        "role": "assistant", "content": [{"type": "text", "text": "what-ada-wrote"}], "provider": "acme",
        "model": "large-2", "usage": usage, "stopReason": "stop", "timestamp": at + number * 1000,
        "responseId": f"resp_{number:032x}",
    }  # fmt: skip
    return {
        "type": "message", "id": f"{number:08x}", "parentId": None, "timestamp": MADE, "message": message | other,
    }  # fmt: skip


def head(session: str = FIRST, **other: Any) -> Json:
    return {"type": "session", "version": 3, "id": session, "timestamp": MADE, "cwd": "/home/ada/secret", **other}


def lines_of(entries: Iterable[Json]) -> bytes:
    return "".join(json.dumps(entry) + "\n" for entry in entries).encode()


def transcript(home: Path, name: str, *entries: Json) -> Path:
    path = home / "agents" / "main" / "sessions" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(lines_of(entries))
    return path


def packed(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return bytes(sink.getvalue())


def database(home: Path, rows: dict[str, list[Json]], *, keys: dict[str, str] | None = None) -> Path:
    """An agent's database with the columns that are read, and those that must not be."""
    path = home / "agents" / "main" / "agent" / "openclaw-agent.sqlite"
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as db, db:
        db.executescript(
            "CREATE TABLE session_nodes (session_key TEXT, current_session_id TEXT, entry_json TEXT, status TEXT,"
            " created_at INTEGER, spawned_by TEXT, parent_session_key TEXT, fork_source_session_id TEXT);"
            "CREATE TABLE session_windows (session_id TEXT, session_key TEXT, started_at INTEGER, ended_at INTEGER,"
            " status TEXT, display_name TEXT);"
            "CREATE TABLE transcript_events (session_id TEXT, seq INTEGER, event_json TEXT, event_zstd BLOB);"
            "CREATE TABLE session_transcript_archives (session_id TEXT, session_key TEXT, encoding TEXT,"
            " archive_blob BLOB);"
            "CREATE TABLE auth_profile_store (store_key TEXT, store_json TEXT);"
            "INSERT INTO auth_profile_store VALUES ('main', 'planted-secret');"
        )
        for session, entries in rows.items():
            key = (keys or {}).get(session, f"agent:main:{session}")
            db.execute("INSERT INTO session_nodes (session_key, current_session_id) VALUES (?, ?)", (key, session))
            db.execute("INSERT INTO session_windows (session_id, session_key) VALUES (?, ?)", (session, key))
            for seq, entry in enumerate(entries):
                text = json.dumps(entry)
                values = (session, seq, None, packed(text.encode())) if seq % 2 else (session, seq, text, None)
                db.execute("INSERT INTO transcript_events VALUES (?, ?, ?, ?)", values)
    return path


def turns(device: Device) -> list[Row]:
    return sorted(device.delivered("llm_turns"), key=lambda row: row["occurred_at"])


def test_a_response_is_a_row_with_its_cache_within_the_input(tmp_path: Path) -> None:
    home = tmp_path / ".openclaw"
    transcript(home, f"{FIRST}.jsonl", head(), response(1))
    device = granted(tmp_path / "apiary", home)
    device.ship(home)
    (row,) = turns(device)
    assert {name: row[name] for name in ("agent_runtime", "turn_grain", "session_id", "stop_reason", "is_final")} == {
        "agent_runtime": "openclaw", "turn_grain": "response", "session_id": FIRST, "stop_reason": "stop",
        "is_final": True,
    }  # fmt: skip
    assert (row["input_tokens"], row["cache_read_input_tokens"], row["cache_write_input_tokens"]) == (1106, 1000, 5)
    assert (row["output_tokens"], row["reasoning_output_tokens"], str(row["reported_cost_usd"])[:5]) == (10, 3, "0.125")
    assert row["cache_write_5m_input_tokens"] is None, "the source does not say how long it is kept"


def test_every_kind_of_copy_counts_once_and_archives_count(tmp_path: Path) -> None:
    home = tmp_path / ".openclaw"
    own = [head(), response(1), response(2)]
    transcript(home, f"{FIRST}.jsonl", *own)
    transcript(home, f"{SECOND}.jsonl.reset.2026-10-22T09-11-18.924Z", head(SECOND), response(3, session=SECOND))
    path = transcript(home, f"{THIRD}.jsonl.deleted.2026-11-28T17-28-30.210Z.{'a' * 32}.zst", head(THIRD))
    path.write_bytes(packed(lines_of([head(THIRD), response(4, session=THIRD)])))
    for never in (f"{FIRST}.trajectory.jsonl", f"{FIRST}.checkpoint.{SECOND}.jsonl"):
        transcript(home, never, head(), response(90))
    archive = home / "agents" / "main" / "session-sqlite-import-archive" / f"main.{FIRST}.jsonl.imported-1"
    archive.parent.mkdir()
    archive.write_bytes(lines_of([*own, response(91)]))
    database(home, {FIRST: [*own, response(5)]})
    device = granted(tmp_path / "apiary", home)
    device.ship(home)
    assert [row["input_tokens"] - 1105 for row in turns(device)] == [1, 2, 3, 4, 5]
    assert Counter(row["session_id"] for row in turns(device)) == {FIRST: 3, SECOND: 1, THIRD: 1}


@pytest.mark.parametrize("is_database", [False, True])
def test_what_a_fork_copied_is_its_parents(tmp_path: Path, is_database: bool) -> None:
    home = tmp_path / ".openclaw"
    later = 1_792_670_000_000
    fork = [
        head(SECOND, timestamp="2026-10-22T11:00:00.000Z", parentSession=f"/home/ada/x/{FIRST}.jsonl"),
        response(1),
        response(2, at=later),
    ]
    if is_database:
        database(home, {FIRST: [head(), response(1)], SECOND: fork})
    else:
        transcript(home, f"2026-10-22T11-00-00-000Z_{SECOND}.jsonl", *fork)  # is read before its parent
        transcript(home, f"{FIRST}.jsonl", head(), response(1))
    device = granted(tmp_path / "apiary", home)
    device.ship(home)
    assert [row["session_id"] for row in turns(device)] == [FIRST, SECOND]


def test_a_failed_response_is_an_event_and_no_usage(tmp_path: Path) -> None:
    home = tmp_path / ".openclaw"
    failed = response(1, usage={"input": 0, "output": 0}, stopReason="error", errorMessage="429 of ada@example.org")
    transcript(home, f"{FIRST}.jsonl", head(), failed)
    device = granted(tmp_path / "apiary", home)
    device.ship(home)
    assert turns(device) == []
    (event,) = device.delivered("status_events")
    assert (event["kind"], event["error_class"]) == ("api_error", "rate_limit")


def test_calls_have_the_name_of_the_response_and_the_end_of_the_result(tmp_path: Path) -> None:
    home = tmp_path / ".openclaw"
    call = {"type": "toolCall", "id": "call_0", "name": "exec", "arguments": {"command": "what-ada-wrote"}}
    result = {
        "role": "toolResult", "toolCallId": "call_0", "toolName": "exec", "content": [], "isError": True,
        "details": {"durationMs": 1500}, "timestamp": 1_792_660_009_000,
    }  # fmt: skip
    again = {"type": "message", "id": "ff", "timestamp": MADE, "message": result}
    path = transcript(home, f"{FIRST}.jsonl", head(), response(1, content=[call]))
    device = granted(tmp_path / "apiary", home)
    device.ship(home)  # the result comes in a later pass
    with path.open("ab") as file:
        file.write(lines_of([again, response(2, content=[call])]))
    device.ship(home)
    finished = [row for row in device.delivered("tool_calls") if row["is_final"]]
    assert [(row["is_error"], row["duration_seconds"]) for row in finished] == [(True, 1.5)]
    assert len({row["record_id"] for row in device.delivered("tool_calls")}) == 2, "an id that is used twice"


def test_a_session_has_its_agent_channel_and_kind(tmp_path: Path) -> None:
    home = tmp_path / ".openclaw"
    transcript(home, f"{FIRST}.jsonl", head(), response(1))
    counted = {"sessionId": SECOND, "lastChannel": "what-ada-wrote", "outputTokens": 7, "inputTokens": 5}
    store = {
        "agent:main:telegram:group:12036300": {"sessionId": FIRST, "channel": "telegram", "label": "what-ada-wrote"},
        "agent:main:cron:x": counted,
    }
    (home / "agents" / "main" / "sessions" / "sessions.json").write_text(json.dumps(store))
    device = granted(tmp_path / "apiary", home)
    device.ship(home)
    found = {row["session_id"]: row for row in device.delivered("sessions")}
    assert [(found[name]["channel"], found[name]["entrypoint"]) for name in (FIRST, SECOND)] == [
        ("telegram", "channel"),
        ("other", "cron"),
    ]
    assert len({row["agent_name"] for row in found.values()}) == 1
    (claim,) = device.delivered("control_totals")
    assert (claim["claimed_by"], claim["session_id"], claim["output_tokens"]) == ("session_counters", SECOND, 7)


def test_runs_of_sub_agents_and_jobs_have_an_end_and_no_task(tmp_path: Path) -> None:
    home = tmp_path / ".openclaw"
    database(home, {FIRST: [head(), response(1)]}, keys={FIRST: "agent:main:subagent:x"})
    path = home / "state" / "openclaw.sqlite"
    path.parent.mkdir()
    at = 1_792_660_000_000
    cron = f"agent:main:cron:y:run:{SECOND}"
    rows = [
        (FIRST, "subagent", "agent:main:subagent:x", "timed_out", at, at + 2500, "what-ada-wrote", "timeout of it"),
        (SECOND, "cron", cron, "succeeded", at, at + 1000, "what-ada-wrote", None),
        (THIRD, "cli", "agent:main:subagent:x", "succeeded", at, at + 2500, "what-ada-wrote", None),
        (f"{THIRD[:-1]}9", "subagent", "agent:main:subagent:gone", "running", at, None, "what-ada-wrote", None),
    ]
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(
            "CREATE TABLE task_runs (task_id TEXT, runtime TEXT, child_session_key TEXT, status TEXT,"
            " started_at INTEGER, ended_at INTEGER, task TEXT, error TEXT)"
        )
        db.executemany("INSERT INTO task_runs VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
    device = granted(tmp_path / "apiary", home)
    device.ship(home)
    found = device.delivered("agent_runs")
    assert Counter(row["kind"] for row in found) == {"started": 2, "failed": 1, "completed": 1}
    ends = {row["session_id"]: row for row in found if row["kind"] != "started"}
    assert [(ends[name]["outcome"], ends[name]["duration_seconds"]) for name in (FIRST, SECOND)] == [
        ("timeout", 2.5),
        ("success", 1.0),
    ]
    assert ends[FIRST]["error_class"] == "timeout"
    kept = b"".join(path.read_bytes() for path in (tmp_path / "apiary").rglob("*") if path.is_file())
    assert b"what-ada-wrote" not in kept


def state_database(home: Path, *statements: str) -> Path:
    """The database of a home's runs."""
    path = home / "state" / "openclaw.sqlite"
    path.parent.mkdir(exist_ok=True)
    with closing(sqlite3.connect(path)) as db, db:
        for statement in statements:
            db.execute(statement)
    return path


RUN = "99803ff0-0000-4000-8000-000000000001"
AT = 1_792_660_000_000
CHILD = "agent:main:subagent:x"
TASK_TABLE = "task_id TEXT, runtime TEXT, child_session_key TEXT, status TEXT, run_id TEXT, source_id TEXT"
TOLD = {
    "task": (
        f"CREATE TABLE task_runs ({TASK_TABLE}, started_at INTEGER, ended_at INTEGER, tool_use_count INTEGER)",
        f"INSERT INTO task_runs VALUES ('{THIRD}', 'subagent', '{CHILD}', 'succeeded', '{RUN}', '',"
        f" {AT + 9}, {AT + 2000}, 4)",
    ),
    "run": (
        "CREATE TABLE subagent_runs (run_id TEXT, child_session_key TEXT, payload_json TEXT)",
        "INSERT INTO subagent_runs VALUES ('{run}', '{child}', '{payload}')".format(
            run=RUN, child=CHILD, payload=json.dumps({
                "childSessionKey": CHILD, "task": "what-ada-wrote",
                "execution": {"startedAt": AT, "endedAt": AT + 2000, "outcome": {"status": "ok"}},
            }),
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("order", [("task", "run", "file"), ("file", "task", "run"), ("run", "file", "task")])
def test_a_run_that_stands_in_several_places_is_one(tmp_path: Path, order: tuple[str, ...]) -> None:
    home = tmp_path / ".openclaw"
    database(home, {FIRST: [head(), response(1)]}, keys={FIRST: CHILD})
    device = granted(tmp_path / "apiary", home)
    file = home / "subagents" / "runs.json"
    for place in order:
        if place == "file":
            file.parent.mkdir()
            run = {"childSessionKey": CHILD, "startedAt": AT, "endedAt": AT + 2000, "outcome": {"status": "ok"}}
            file.write_text(json.dumps({"version": 2, "runs": {RUN: run | {"task": "what-ada-wrote"}, "torn": None}}))
        else:
            state_database(home, *TOLD[place])
        device.ship(home)
    runs = {row["kind"]: row for row in device.delivered("agent_runs")}
    assert len(device.delivered("agent_runs")) == len(runs) == 2
    assert (runs["completed"]["duration_seconds"], runs["completed"]["tool_calls_used"]) == (2.0, 4)
    assert runs["started"]["occurred_at"].timestamp() * 1000 == AT
    kept = b"".join(path.read_bytes() for path in (tmp_path / "apiary").rglob("*") if path.is_file())
    assert b"what-ada-wrote" not in kept


@pytest.mark.parametrize(
    ("found", "kinds"),
    [
        ({"outcome": {"status": "timeout"}}, {"started", "failed"}),
        ({"outcome": {"status": "error"}, "endedReason": "subagent-killed"}, {"started", "cancelled"}),
        ({"outcome": {"status": "another"}}, {"started"}),
        ({"endedAt": "soon"}, {"started"}),
        ({"startedAt": -1, "outcome": {"status": "ok"}}, {"completed"}),
        ({"childSessionKey": "agent:main:subagent:gone"}, set()),
    ],
)
def test_a_sub_agents_run_ends_as_the_file_says(tmp_path: Path, found: Json, kinds: set[str]) -> None:
    home = tmp_path / ".openclaw"
    database(home, {FIRST: [head(), response(1)]}, keys={FIRST: CHILD})
    path = home / "subagents" / "runs.json"
    path.parent.mkdir()
    run = {"childSessionKey": CHILD, "startedAt": AT, "endedAt": AT + 2000, **found}
    path.write_text(json.dumps({"runs": {RUN: run}}))
    device = granted(tmp_path / "apiary", home)
    device.ship(home)
    assert {row["kind"] for row in device.delivered("agent_runs")} == kinds


def test_a_scheduled_run_has_its_session_from_its_log_and_is_one_with_its_task(tmp_path: Path) -> None:
    home = tmp_path / ".openclaw"
    database(home, {FIRST: [head(), response(1)]})
    job = "dd00b34c-d731-4492-b74f-d9b13e95d947"
    child = f"agent:main:cron:{job}:run:{SECOND}"
    state_database(
        home,
        "CREATE TABLE cron_run_logs (job_id TEXT, session_id TEXT, status TEXT, error TEXT, summary TEXT,"
        " run_at_ms INTEGER, duration_ms INTEGER)",
        f"INSERT INTO cron_run_logs VALUES ('{job}', '{SECOND}', 'error', 'timeout', 'what-ada-wrote', {AT}, 500)",
        f"INSERT INTO cron_run_logs VALUES ('{job}', NULL, 'skipped', NULL, NULL, {AT + 5}, NULL)",
        TOLD["task"][0],
        f"INSERT INTO task_runs VALUES ('{THIRD}', 'cron', '{child}', 'failed', 'c', '{job}', {AT}, {AT + 500}, 2)",
        f"INSERT INTO task_runs VALUES ('{FIRST}', 'cron', NULL, 'failed', 'cron:x', '{job}', {AT + 9}, {AT + 10}, 2)",
    )
    device = granted(tmp_path / "apiary", home)
    device.ship(home)
    assert Counter((row["kind"], row["session_id"]) for row in device.delivered("agent_runs")) == {
        ("started", SECOND): 1,
        ("failed", SECOND): 1,
    }
    (ended,) = (row for row in device.delivered("agent_runs") if row["kind"] == "failed")
    assert (ended["error_class"], ended["tool_calls_used"], ended["duration_seconds"]) == ("timeout", 2, 0.5)


@pytest.mark.parametrize("order", list(permutations((FIRST, SECOND, THIRD))))
def test_a_copy_of_a_copy_is_the_first_sessions(tmp_path: Path, order: tuple[str, ...]) -> None:
    """A fork of a fork names its own parent: whose a response is must not depend on which transcript is read first."""
    forked = {"parentSession": f"/home/ada/x/{FIRST}.jsonl", "timestamp": "2026-10-22T09:10:00.000Z"}
    again = {"parentSession": f"/home/ada/x/{SECOND}.jsonl", "timestamp": "2026-10-22T09:11:00.000Z"}
    entries = {
        FIRST: [head(), response(1)],
        SECOND: [head(SECOND, **forked), response(1)],
        THIRD: [head(THIRD, **again), response(1)],
    }
    for number in (1, 2, 3):
        home = tmp_path / str(number) / ".openclaw"
        device: Device | None = None
        for session in order[:number]:
            transcript(home, f"{session}.jsonl", *entries[session])
            device = device or granted(tmp_path / str(number) / "apiary", home)
            device.ship(home)
        assert device is not None
        (row,) = turns(device)
        is_original = FIRST in order[:number]
        assert row["session_id"] == (SECOND if order[:number] == (THIRD,) else FIRST)
        assert row["is_copy"] is not is_original


@pytest.mark.parametrize("is_database", [False, True])
def test_copies_of_copies_that_have_no_id_count_once(tmp_path: Path, is_database: bool) -> None:
    """Without an id of the response its session tells it from others: of every copy it is the first session's."""
    home = tmp_path / ".openclaw"
    anonymous = response(1, responseId=None)
    entries = {FIRST: [head(), anonymous]}
    for number, (parent, session) in enumerate(pairwise((FIRST, SECOND, THIRD)), 10):
        forked = head(session, parentSession=f"/home/ada/x/{parent}.jsonl", timestamp=f"2026-10-22T09:{number}:00.000Z")
        entries[session] = [forked, anonymous]
    if is_database:
        database(home, entries)
    else:
        for session, found in entries.items():
            transcript(home, f"{session}.jsonl", *found)
    device = granted(tmp_path / "apiary", home)
    device.ship(home)
    assert [row["session_id"] for row in turns(device)] == [FIRST]


@pytest.mark.parametrize("is_archive", [False, True])
def test_a_row_that_cannot_be_read_stops_no_other(tmp_path: Path, is_archive: bool) -> None:
    home = tmp_path / ".openclaw"
    path = database(home, {FIRST: [head(), response(1)]})
    with closing(sqlite3.connect(path)) as db, db:
        if is_archive:
            db.execute("INSERT INTO session_transcript_archives VALUES (?, 'k', 'zstd', ?)", (SECOND, b"no frame"))
        else:
            db.executemany(
                "INSERT INTO transcript_events VALUES (?, ?, ?, ?)",
                [(SECOND, 0, None, b"no frame"), (SECOND, 1, '{"type": "message", "role": "assistant" ', None)],
            )
        entries = [(THIRD, number, json.dumps(entry)) for number, entry in enumerate((head(THIRD), response(2)))]
        db.executemany("INSERT INTO transcript_events (session_id, seq, event_json) VALUES (?, ?, ?)", entries)
    device = granted(tmp_path / "apiary", home)
    device.ship(home)
    assert [row["session_id"] for row in turns(device)] == [FIRST, THIRD]
    (told,) = device.sources("session_store")
    assert (told["outcome"], told["lines_rejected"]) == ("read", 1 if is_archive else 2)


@pytest.mark.parametrize("number", ["40", -3, 1.5, True])
def test_a_number_that_is_none_is_told(tmp_path: Path, number: object) -> None:
    home = tmp_path / ".openclaw"
    wrong = response(1)
    wrong["message"]["usage"]["input"] = number
    transcript(home, f"{FIRST}.jsonl", head(), wrong, response(2))
    device = granted(tmp_path / "apiary", home)
    device.ship(home)
    assert [row["input_tokens"] for row in turns(device)] == [1107]
    assert [row["turn_lines_rejected"] for row in device.sources("transcript")] == [1]


@pytest.mark.parametrize(
    ("key", "kind", "entrypoint"),
    [
        ("agent:subagent:main", "agent_session", None),
        ("agent:cron:main", "agent_session", None),
        ("agent:main:whatsapp:group:subagent", "agent_session", "channel"),
        ("agent:main:whatsapp:group:cron", "agent_session", "channel"),
        ("agent:main:whatsapp:direct:hook", "agent_session", None),
        (f"agent:main:subagent:{SECOND}", "worker", None),
        (f"agent:main:main:subagent:{SECOND}", "worker", None),
        ("cron:nightly", "agent_session", "cron"),
        (f"agent:main:hook:{SECOND}", "agent_session", "hook"),
        ("agent:main:dashboard:x", "agent_session", "web"),
    ],
)
def test_a_kind_is_told_by_its_place_in_the_key(tmp_path: Path, key: str, kind: str, entrypoint: str | None) -> None:
    """What an agent or a peer is called is no kind."""
    home = tmp_path / ".openclaw"
    database(home, {FIRST: [head(), response(1)]}, keys={FIRST: key})
    device = granted(tmp_path / "apiary", home)
    device.ship(home)
    (session,) = device.delivered("sessions")
    assert (session["session_kind"], session["entrypoint"]) == (kind, entrypoint)


@pytest.mark.parametrize(("started", "told"), [(-300, []), (None, [None]), (10, [9])])
def test_counters_of_a_run_before_a_grant_without_history_stay(
    tmp_path: Path, started: int | None, told: list[int | None]
) -> None:
    """`started`: minutes after the grant, where the store says so."""
    since = datetime.now(UTC) - timedelta(hours=1)

    def millis(minutes: int) -> int:
        return int((since + timedelta(minutes=minutes)).timestamp() * 1000)

    home = tmp_path / ".openclaw"
    entry = {"sessionId": FIRST, "updatedAt": millis(30), "inputTokens": 5, "outputTokens": 9, "estimatedCostUsd": 1}
    store = transcript(home, f"{FIRST}.jsonl", head()).with_name("sessions.json")
    store.write_text(json.dumps({"agent:main:main": entry | ({"startedAt": millis(started)} if started else {})}))
    made = device(tmp_path / "apiary")
    made.grant([home], history="exclude", now=since)
    made.ship(home)
    assert [row["output_tokens"] for row in made.delivered("control_totals")] == told


def test_sqlite_denies_what_is_not_allowed(tmp_path: Path) -> None:
    path = database(tmp_path, {FIRST: [head(), response(1)]})
    for sql in (
        "SELECT store_json FROM auth_profile_store", "SELECT count(*) FROM auth_profile_store",
        "SELECT entry_json FROM session_nodes", "SELECT readfile('x')", "ATTACH 'x' AS other",
    ):  # fmt: skip
        with pytest.raises(UnreadableError):
            sqlite.read(path, tmp_path / "s", databases.ALLOWED, lambda db, sql=sql: db.execute(sql).fetchall())


def test_nothing_private_leaves(tmp_path: Path) -> None:
    home = tmp_path / ".openclaw"
    database(home, {FIRST: [head(), response(1)]}, keys={FIRST: "agent:main:whatsapp:group:12036300@g.us"})
    device = granted(tmp_path / "apiary", home)
    device.ship(home)
    assert turns(device)
    kept = b"".join(path.read_bytes() for path in (tmp_path / "apiary").rglob("*") if path.is_file())
    for word in (b"planted-secret", b"12036300", b"what-ada-wrote", b"/home/ada"):
        assert word not in kept, word


@needs(PUBLIC)
def test_public_files_have_the_counts_that_others_found() -> None:
    logs = OPENCLAW.contents(PUBLIC, Setting(Clock("UTC"), frozenset({"events", "descriptions"}))).logs
    found = [
        record
        for log in logs
        for data in log.path.read_bytes().splitlines()
        for _, line in lines.parse(data, log.is_record).records
        for record in log.parse(line, At(1, None))
        if record.is_turn
    ]
    assert len(logs) == 1, "a checkpoint is a copy"
    used = [record.parts["usage"].values for record in found]
    assert [(values["input_tokens"], values["output_tokens"]) for values in used] == [(5, 10)]


@needs(SAMPLE)
@pytest.mark.parametrize("eras", [("files",), ("sqlite",), ("files", "sqlite"), ("sqlite", "files")])
def test_the_sample_is_counted_to_the_token(tmp_path: Path, eras: tuple[str, ...]) -> None:
    with tarfile.open(SAMPLE) as tar:
        tar.extractall(tmp_path / "sample", filter="data")
    homes = json.loads((SAMPLES / "openclaw-home.truth.json").read_text("utf-8"))["homes_truth"]
    home = tmp_path / "ada" / ".openclaw"
    device: Device | None = None
    for era in eras:
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(tmp_path / "sample" / era / ".openclaw", home)
        device = device or granted(tmp_path / "apiary", home)
        device.ship(home)
    assert device is not None
    truth = homes["sqlite" if "sqlite" in eras else "files"]
    rows, calls = turns(device), {row["record_id"] for row in device.delivered("tool_calls")}
    found = {
        "turns": len(rows), "cached_tokens": sum(row["cache_read_input_tokens"] for row in rows),
        "cache_creation_tokens": sum(row["cache_write_input_tokens"] for row in rows),
        "input_tokens": sum(
            row["input_tokens"] - row["cache_read_input_tokens"] - row["cache_write_input_tokens"] for row in rows
        ),
        "output_tokens": sum(row["output_tokens"] for row in rows),
        "reasoning_tokens": sum(row["reasoning_output_tokens"] or 0 for row in rows), "tool_calls": len(calls),
    }  # fmt: skip
    assert found == {name: truth["totals"]["unique_usage"][name] for name in found}
    assert Counter(f"{row['occurred_at']:%Y-%m-%d}" for row in rows) == {
        day: usage["turns"] for day, usage in truth["totals"]["by_utc_day"].items()
    }
    assert Counter(row["session_id"] for row in rows) == {
        session["session_id"]: session["usage_own"]["turns"]
        for session in truth["sessions"]
        if session["usage_own"]["turns"]
    }
    runs = set().union(
        *(runs_in(tmp_path / "sample" / era / ".openclaw" / "state" / "openclaw.sqlite") for era in eras)
    )
    ends = [row for row in device.delivered("agent_runs") if row["kind"] != "started"]
    assert (len(ends), sum(row["outcome"] == "success" for row in ends)) == (len(runs), len(runs))


def runs_in(path: Path) -> set[tuple[object, ...]]:
    """The runs of a home's database: sub-agents by their id, scheduled ones by their job and time."""
    with closing(sqlite3.connect(path)) as db:
        found = set(db.execute("SELECT run_id FROM subagent_runs"))
        found |= set(db.execute("SELECT source_id, started_at FROM task_runs WHERE runtime = 'cron'"))
    return found


@pytest.mark.parametrize("era", ["files", "sqlite"])
def test_a_simulated_home_is_counted_exactly(tmp_path: Path, era: Literal["files", "sqlite"]) -> None:
    home = tmp_path / ".openclaw"
    spec = OpenClawSpec(seed=3, first_day=date(2026, 11, 2), days=2, era=era, words="CANARY-WORDS-000077 of pears")
    counted_exactly(tmp_path, home, spec.write(home))


# Any interleaving ends at the ledger ----------------------------------------------------------------------------------

PHASES = [phase for phase in Phase if phase is not Phase.shrink]  # each try ships three times
FATES = ("stays", "reset", "deleted", "packed", "database")


@dataclass
class Ledger:
    """What a test invents: the session of each response, and the sessions with their entries, in the order of their
    beginnings."""

    responses: dict[str, str] = field(default_factory=dict)
    sessions: dict[str, list[Json]] = field(default_factory=dict)


@st.composite
def ledgers(draw: st.DrawFn) -> Ledger:
    """One to four sessions, some of them forks of an earlier one: they begin with copies of its entries."""
    made, number = Ledger(), 0
    for place in range(draw(st.integers(1, 4))):
        session = f"{place + 1}0000000-0000-4000-8000-00000000000{place + 1}"
        parent = draw(st.sampled_from([None, *made.sessions]))
        copied = [entry for entry in made.sessions.get(parent or "", []) if entry["type"] == "message"]
        copied = copied[: draw(st.integers(0, len(copied)))]
        more = {"parentSession": f"/home/ada/x/{parent}.jsonl"} if parent else {}
        number += 1
        began = datetime.fromtimestamp(1_792_660_000 + number, UTC).isoformat(timespec="milliseconds")
        entries = [head(session, **more, timestamp=began.replace("+00:00", "Z")), *copied]
        for _ in range(draw(st.integers(1, 3))):
            number += 1
            entries.append(response(number, session=session))
            made.responses[f"resp_{number:032x}"] = session
        made.sessions[session] = entries
    return made


@settings(max_examples=15, deadline=None, phases=PHASES)
@given(made=ledgers(), data=st.data())
def test_any_interleaving_of_lines_copies_and_eras_ends_at_the_ledger(
    made: Ledger, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("ledger")
    home = folder / ".openclaw"
    fates = {session: data.draw(st.sampled_from(FATES), label=session) for session in made.sessions}
    device: Device | None = None
    for is_last in (False, False, True):
        for session, entries in data.draw(st.permutations(sorted(made.sessions.items()))):
            whole = lines_of(entries)
            path = home / "agents" / "main" / "sessions" / f"{session}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            seen = path.stat().st_size if path.exists() else 0
            path.write_bytes(whole[: len(whole) if is_last else data.draw(st.integers(seen, len(whole)))])
        if is_last:
            change_places(home, made, fates)
        device = device or granted(folder / "apiary", home)
        device.ship(home)
    assert device is not None
    rows = turns(device)
    assert {row["response_id"]: row["session_id"] for row in rows} == made.responses
    assert len(rows) == len(made.responses)
    assert sum(row["output_tokens"] for row in rows) == 10 * len(rows)


def change_places(home: Path, made: Ledger, fates: dict[str, str]) -> None:
    """Archive sessions as their fates say, and move those of the database into it."""
    folder = home / "agents" / "main" / "sessions"
    stamp = "2026-10-22T09-11-18.924Z"
    for session, fate in fates.items():
        path = folder / f"{session}.jsonl"
        if fate in ("reset", "deleted"):
            path.rename(folder / f"{session}.jsonl.{fate}.{stamp}")
        elif fate == "packed":
            (folder / f"{session}.jsonl.deleted.{stamp}.{'a' * 32}.zst").write_bytes(packed(path.read_bytes()))
            path.unlink()
        elif fate == "database":
            path.unlink()
    database(home, {session: made.sessions[session] for session, fate in fates.items() if fate == "database"})
