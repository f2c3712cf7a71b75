"""Writes one hyperhive home and gives back its exact usage: an agent with transcripts, one without, a broker.

Ours, after public descriptions. Does not belong here: lines of transcripts (claude_code.py), reading any home.
"""

from __future__ import annotations

import json
import random
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any, ClassVar

from pipelines.simulate.claude_code import ClaudeCodeSpec, write_claude_home
from pipelines.simulate.counts import Usage

WAKES = ("reminder", "operator", "system", "manual")
TURNS = """
CREATE TABLE turn_stats (id INTEGER PRIMARY KEY AUTOINCREMENT, started_at INTEGER, ended_at INTEGER,
    duration_ms INTEGER, model TEXT, wake_from TEXT, input_tokens INTEGER DEFAULT 0, output_tokens INTEGER DEFAULT 0,
    cache_read_input_tokens INTEGER DEFAULT 0, cache_creation_input_tokens INTEGER DEFAULT 0,
    tool_call_count INTEGER DEFAULT 0, tool_call_breakdown_json TEXT DEFAULT '{}', open_threads_count INTEGER,
    open_reminders_count INTEGER, result_kind TEXT, note TEXT, last_input_tokens INTEGER DEFAULT 0,
    last_output_tokens INTEGER DEFAULT 0, last_cache_read_input_tokens INTEGER DEFAULT 0,
    last_cache_creation_input_tokens INTEGER DEFAULT 0)
"""
INSERT = """
INSERT INTO turn_stats (started_at, ended_at, duration_ms, model, wake_from, input_tokens, output_tokens,
    cache_read_input_tokens, cache_creation_input_tokens, tool_call_count, tool_call_breakdown_json, open_threads_count,
    open_reminders_count, result_kind, note)
VALUES (:started_at, :ended_at, :duration_ms, :model, :wake_from, :input_tokens, :output_tokens,
    :cache_read_input_tokens, :cache_creation_input_tokens, :tool_call_count, :tool_call_breakdown_json,
    :open_threads_count, :open_reminders_count, :result_kind, :note)
"""
BROKER = """
CREATE TABLE messages (id INTEGER PRIMARY KEY, sender TEXT, recipient TEXT, body TEXT, sent_at INTEGER,
    delivered_at INTEGER, in_reply_to INTEGER);
CREATE TABLE approvals (id INTEGER PRIMARY KEY, agent TEXT, kind TEXT, commit_ref TEXT, requested_at INTEGER,
    status TEXT, resolved_at INTEGER, note TEXT);
CREATE TABLE operator_questions (id INTEGER PRIMARY KEY, asker TEXT, question TEXT, options_json TEXT, multi INTEGER,
    asked_at INTEGER, answered_at INTEGER, answer TEXT, deadline_at INTEGER, target TEXT);
CREATE TABLE reminders (id INTEGER PRIMARY KEY, agent TEXT, message TEXT, due_at INTEGER, created_at INTEGER,
    sent_at INTEGER, last_error TEXT, attempt_count INTEGER);
"""


@dataclass(frozen=True, kw_only=True)
class HyperhiveSpec:
    """What to write: turns of each day and agent."""

    folder: ClassVar[str] = "hyperhive"

    seed: int
    first_day: date
    days: int = 3
    turns_per_day: int = 4
    words: str = "the pears of the orchard"
    """What stands in every free text."""

    def write(self, root: Path) -> Usage:
        """Write the home into `root`; its usage: responses where there are transcripts, else turns."""
        home = _Home(root, self)
        return home.with_transcripts("mira") + home.without_transcripts("otto") + home.broker("mira", "otto")


class _Home:
    def __init__(self, root: Path, spec: HyperhiveSpec) -> None:
        self._rng = random.Random(f"hyperhive|{spec.seed}|{spec.first_day}")
        self._spec = spec
        self._root = root

    def with_transcripts(self, agent: str) -> Usage:
        """An agent whose turns are known twice: by their responses, which count, and by rows that leave out helpers."""
        spec = self._spec
        claude = self._root / "agents" / agent / "claude"
        usage = write_claude_home(
            claude, ClaudeCodeSpec(seed=spec.seed, first_day=spec.first_day, days=spec.days, words=spec.words)
        )
        rows = [self._row_of(path) for path in claude.glob("projects/*/*.jsonl")]
        self._statistics(agent, sorted(rows, key=lambda row: int(row["started_at"])))
        return usage

    def without_transcripts(self, agent: str) -> Usage:
        """An agent of which only rows are left."""
        usage, rows = Usage(), []
        apart = timedelta(seconds=min(7_200, 57_600 // self._spec.turns_per_day))
        for number in range(self._spec.days * self._spec.turns_per_day):
            day, place = divmod(number, self._spec.turns_per_day)
            start = datetime.combine(self._spec.first_day + timedelta(days=day), time(7, 20), UTC) + place * apart
            read, written = self._rng.randint(5_000, 200_000), self._rng.randint(0, 9_000)
            tools = {tool: self._rng.randint(1, 3) for tool in self._rng.sample(["Read", "Bash", "Edit"], 2)}
            row: dict[str, Any] = {
                "input_tokens": self._rng.randint(2, 900), "output_tokens": self._rng.randint(50, 4_000),
                "cache_read_input_tokens": read, "cache_creation_input_tokens": written,
                "tool_call_count": sum(tools.values()), "tool_call_breakdown_json": json.dumps(tools),
            }  # fmt: skip
            rows.append(self._row(start, start + timedelta(seconds=self._rng.randint(4, 90))) | row)
            usage += Usage(
                turns=1, input_tokens=row["input_tokens"] + read + written, output_tokens=row["output_tokens"],
                cache_read_input_tokens=read, cache_write_input_tokens=written, tool_calls=row["tool_call_count"],
                unreported_turns=1,
            )  # fmt: skip
        self._statistics(agent, rows)
        return usage

    def broker(self, first: str, second: str) -> Usage:
        """What the agents asked for: no usage."""
        words = self._spec.words
        at = int(datetime.combine(self._spec.first_day, time(10), UTC).timestamp())
        path = self._root / "db" / "broker.sqlite"
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path)) as db, db:
            db.executescript(BROKER)
            for number in range(4):
                sent = at + 900 * number
                replied = number or None
                values = (number + 1, first, second, words, sent, sent + 60 if number % 2 else None, replied)
                db.execute("INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?, ?)", values)
            approval = (1, second, "apply_commit", words, at, "approved", at + 1800, words)
            db.execute("INSERT INTO approvals VALUES (?, ?, ?, ?, ?, ?, ?, ?)", approval)
            asked = (1, first, words, "[]", 0, at, None, None, at + 7200, None)
            db.execute("INSERT INTO operator_questions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", asked)
            reminder = (1, second, words, at + 3600, at, at + 3605, None, 1)
            db.execute("INSERT INTO reminders VALUES (?, ?, ?, ?, ?, ?, ?, ?)", reminder)
        return Usage()

    def _row_of(self, path: Path) -> dict[str, Any]:
        """The row of the turn that a transcript's own lines are: the last line of each response, no helpers'."""
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        own = [line for line in lines if "forkedFrom" not in line]
        usage = {line["message"]["id"]: line["message"]["usage"] for line in own if line["type"] == "assistant"}
        blocks = [block for line in own if line["type"] == "assistant" for block in line["message"]["content"]]
        tools = [block["name"] for block in blocks if block["type"] == "tool_use"]
        names = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
        times = [datetime.fromisoformat(line["timestamp"]) for line in own]
        return (
            self._row(times[0] - timedelta(seconds=2), times[-1] + timedelta(seconds=1))
            | {name: sum(counts[name] for counts in usage.values()) for name in names}
            | {
                "tool_call_count": len(tools),
                "tool_call_breakdown_json": json.dumps({tool: tools.count(tool) for tool in sorted(set(tools))}),
            }
        )

    def _row(self, start: datetime, end: datetime) -> dict[str, Any]:
        return {
            "started_at": int(start.timestamp()), "ended_at": int(end.timestamp()),
            "duration_ms": int((end - start).total_seconds() * 1000), "model": "sonnet", "note": self._spec.words,
            "wake_from": self._rng.choice((*WAKES, self._spec.words)), "result_kind": "ok",
            "open_threads_count": self._rng.randint(0, 3), "open_reminders_count": self._rng.randint(0, 2),
        }  # fmt: skip

    def _statistics(self, agent: str, rows: list[dict[str, Any]]) -> None:
        path = self._root / "agents" / agent / "harness" / "hyperhive-turn-stats.sqlite"
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path)) as db, db:
            db.execute(TURNS)
            db.executemany(INSERT, rows)
