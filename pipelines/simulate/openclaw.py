"""Writes one OpenClaw home of either era and gives back its exact usage: a reset, a sub-agent, a scheduled run, a fork.

Ours, after public descriptions. Does not belong here: homes of other runtimes, reading any.
"""

from __future__ import annotations

import json
import random
import sqlite3
import uuid
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar, Literal

from pipelines.simulate.counts import Usage

Json = dict[str, Any]
MODELS = (("anthropic", "claude-sonnet-4-6"), ("openai", "gpt-5.1"), ("ollama", "qwen3:8b"))
TOOLS = ("exec", "read", "sessions_spawn")
SCHEMA = """
CREATE TABLE session_nodes (session_key TEXT PRIMARY KEY, current_session_id TEXT, entry_json TEXT, status TEXT,
    created_via TEXT, parent_session_key TEXT, spawned_by TEXT, fork_source_session_id TEXT, created_at INTEGER,
    updated_at INTEGER);
CREATE TABLE session_windows (session_id TEXT PRIMARY KEY, session_key TEXT, started_at INTEGER, ended_at INTEGER,
    status TEXT, created_at INTEGER);
CREATE TABLE transcript_events (session_id TEXT, seq INTEGER, event_json TEXT, PRIMARY KEY (session_id, seq));
CREATE TABLE auth_profile_store (store_key TEXT, store_json TEXT);
"""


@dataclass(frozen=True, kw_only=True)
class OpenClawSpec:
    """What to write: sessions of each day, and responses of each session."""

    folder: ClassVar[str] = ".openclaw"

    seed: int
    first_day: date
    days: int = 3
    responses: int = 5
    era: Literal["files", "sqlite"] = "files"
    words: str = "the pears of the orchard"
    """What stands in every free text."""

    def write(self, root: Path) -> Usage:
        """Write the home into `root`; its usage, each response once."""
        home = _Home(root, self)
        for day in range(self.days):
            home.day(datetime.combine(self.first_day + timedelta(days=day), time(9, 10), UTC))
        home.finish()
        return home.usage


@dataclass
class _Session:
    key: str
    session_id: str
    entries: list[Json]
    started_at: int
    ended_at: int
    archive: str = ""
    spawned_by: str | None = None
    forked_from: str | None = None


class _Home:
    def __init__(self, root: Path, spec: OpenClawSpec) -> None:
        self.usage = Usage()
        self._rng = random.Random(f"openclaw|{spec.seed}|{spec.first_day}")
        self._spec = spec
        self._root = root
        self._agent = root / "agents" / "main"
        self._sessions: list[_Session] = []

    def day(self, start: datetime) -> None:
        """The main session, which is reset in the evening; what it spawned; a scheduled run; a fork of the session."""
        main = self._session("agent:main:main", start, archive=f".reset.{start:%Y-%m-%dT%H-%M-%S}.000Z")
        spawned = f"agent:main:subagent:{self._id()}"
        self._session(spawned, start + timedelta(minutes=30), spawned_by=main.key, responses=2)
        self._session(f"agent:main:cron:{self._id()}", start + timedelta(hours=2), responses=1)
        self._session(f"agent:main:dashboard:{self._id()}", start + timedelta(hours=3), copied=main, responses=2)

    def finish(self) -> None:
        """Write everything down as the spec's era does."""
        (self._root / "openclaw.json").parent.mkdir(parents=True, exist_ok=True)
        (self._root / "openclaw.json").write_text(json.dumps({"gateway": {"token": self._spec.words}}), "utf-8")
        self._sessions[-4].archive = ""  # the last main session is still the present one
        if self._spec.era == "files":
            self._write_files()
        else:
            self._write_database()

    def _session(
        self, key: str, start: datetime, *, archive: str = "", spawned_by: str | None = None,
        copied: _Session | None = None, responses: int | None = None,
    ) -> _Session:  # fmt: skip
        session_id = self._id()
        head: Json = {
            "type": "session",
            "version": 3,
            "id": session_id,
            "timestamp": _iso(start),
            "cwd": self._spec.words,
        }
        if copied is not None:
            head["parentSession"] = f"/home/{self._spec.words}/{copied.session_id}.jsonl"
        entries, at = [head, *(copied.entries[1:] if copied else [])], start
        provider, model = self._rng.choice(MODELS)
        number = responses or self._spec.responses
        for place in range(number):
            at += timedelta(seconds=self._rng.randint(3, 50))
            entries += self._response(provider, model, at, is_last=place == number - 1)
        made = _Session(
            key, session_id, entries, _millis(start), _millis(at), archive, spawned_by,
            copied.session_id if copied else None,
        )  # fmt: skip
        self._sessions.append(made)
        return made

    def _response(self, provider: str, model: str, at: datetime, *, is_last: bool) -> list[Json]:
        """A prompt, a response and, if it is not the last, the result of the tool that it called."""
        fresh, read, output = self._rng.randint(20, 900), self._rng.randint(0, 40_000), self._rng.randint(30, 1_800)
        cost = Decimal(fresh + read // 10 + 5 * output).scaleb(-6)
        call = f"call_{self._rng.getrandbits(96):024x}"
        tool = self._rng.choice(TOOLS)
        block = {"type": "toolCall", "id": call, "name": tool, "arguments": {"command": self._spec.words}}
        message = {
            "role": "assistant", "provider": provider, "model": model, "timestamp": _millis(at),
            "responseId": f"resp_{self._rng.getrandbits(128):032x}", "stopReason": "stop" if is_last else "toolUse",
            "content": [{"type": "text", "text": self._spec.words}, *([] if is_last else [block])],
            "usage": {
                "input": fresh, "output": output, "cacheRead": read, "cacheWrite": 0,
                "totalTokens": fresh + read + output, "cost": {"total": float(cost)},
            },
        }  # fmt: skip
        asked = {"role": "user", "content": self._spec.words, "timestamp": _millis(at) - 1000}
        found = [self._entry(asked, at), self._entry(message, at)]
        self.usage += Usage(
            turns=1, input_tokens=fresh + read, output_tokens=output, cache_read_input_tokens=read,
            reported_cost_usd=cost,
        )  # fmt: skip
        if not is_last:
            self.usage = replace(self.usage, tool_calls=self.usage.tool_calls + 1)
            result = {
                "role": "toolResult", "toolCallId": call, "toolName": tool, "content": self._spec.words,
                "isError": self._rng.random() < 0.1, "details": {"durationMs": self._rng.randint(20, 9_000)},
                "timestamp": _millis(at) + 1500,
            }  # fmt: skip
            found.append(self._entry(result, at))
        return found

    def _entry(self, message: Json, at: datetime) -> Json:
        name = f"{self._rng.getrandbits(32):08x}"
        return {"type": "message", "id": name, "parentId": None, "timestamp": _iso(at), "message": message}

    def _write_files(self) -> None:
        folder = self._agent / "sessions"
        folder.mkdir(parents=True, exist_ok=True)
        store: Json = {}
        for found in self._sessions:
            text = "".join(json.dumps(entry) + "\n" for entry in found.entries)
            (folder / f"{found.session_id}.jsonl{found.archive}").write_text(text, "utf-8")
            if not found.archive:
                store[found.key] = {
                    "sessionId": found.session_id, "sessionStartedAt": found.started_at, "updatedAt": found.ended_at,
                    "spawnedBy": found.spawned_by, "label": self._spec.words, "status": "done",
                }  # fmt: skip
        (folder / "sessions.json").write_text(json.dumps(store), "utf-8")

    def _write_database(self) -> None:
        path = self._agent / "agent" / "openclaw-agent.sqlite"
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path)) as db, db:
            db.executescript(SCHEMA)
            db.execute("INSERT INTO auth_profile_store VALUES ('main', ?)", (self._spec.words,))
            for found in self._sessions:
                times = (found.started_at, found.ended_at)
                db.execute(
                    "INSERT OR REPLACE INTO session_nodes (session_key, current_session_id, entry_json, status,"
                    " spawned_by, fork_source_session_id, created_at, updated_at) VALUES (?, ?, ?, 'done', ?, ?, ?, ?)",
                    (found.key, found.session_id, self._spec.words, found.spawned_by, found.forked_from, *times),
                )
                window = (found.session_id, found.key, *times, "done", found.started_at)
                db.execute("INSERT INTO session_windows VALUES (?, ?, ?, ?, ?, ?)", window)
                rows = [(found.session_id, seq, json.dumps(entry)) for seq, entry in enumerate(found.entries)]
                db.executemany("INSERT INTO transcript_events VALUES (?, ?, ?)", rows)

    def _id(self) -> str:
        return str(uuid.UUID(int=self._rng.getrandbits(128), version=4))


def _millis(at: datetime) -> int:
    return int(at.timestamp() * 1000)


def _iso(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
