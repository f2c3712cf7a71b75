"""Rows of `turn_stats` as records: how a turn ended, and what it claims to have used.

Where transcripts of the same turn can be read these are its usage, and the row is a claim to compare with. Elsewhere
the row is the usage, at the grain of a turn. Does not belong here: which transcripts there are (runtime.py).
"""

import json
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from uuid import UUID

from pipelines.contract import wire
from pipelines.contract.keys import Constant
from pipelines.device.clock import epoch_time
from pipelines.device.readers import sqlite
from pipelines.device.readers.base import Group, Item, Part, Record

MAX_CALLS = 10_000  # of one tool in one turn: beyond it the number is no count
REQUIRED = frozenset({"id", "started_at", "ended_at"})
COUNTS = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
LAST = tuple(f"last_{name}" for name in COUNTS)
ALLOWED: sqlite.Allowed = {
    "turn_stats": REQUIRED | {
        "duration_ms", "model", "wake_from", "result_kind", "tool_call_count", "tool_call_breakdown_json",
        "open_threads_count", "open_reminders_count", *COUNTS, *LAST,
    },
}  # fmt: skip
WAKES = {
    "manual": "manual", "operator": "operator", "reminder": "reminder", "system": "system",
}  # fmt: skip
ERRORS = {"failed": "failed", "prompt_too_long": "prompt too long"}


@dataclass(frozen=True)
class Turn:
    """A row of the table."""

    number: int
    started_at: datetime
    ended_at: datetime
    seconds: float | None
    row: sqlite.Values

    @property
    def key(self) -> tuple[object, ...]:
        """What tells it from every other turn: numbers only."""
        row = self.row
        numbers = (row.get(name) for name in ("started_at", "ended_at", "duration_ms", *COUNTS))
        return (self.number, *(number if isinstance(number, int) else None for number in numbers))

    def made_id(self, what: str) -> str:
        """A generated id for it, made of its numbers."""
        return sha256("/".join(map(str, ("hyperhive", what, *self.key))).encode()).hexdigest()[:32]

    @property
    def tokens(self) -> int:
        """All tokens that it says it used."""
        return sum(map(self.count, COUNTS))

    def count(self, name: str) -> int:
        """A number of the row; 0 if it is none."""
        value = self.row.get(name)
        return value if isinstance(value, int) and value > 0 else 0


IsCovered = Callable[[Turn], bool]
"""Whether transcripts tell what a turn used."""


@dataclass(frozen=True)
class Agent:
    """An agent of the hive: its name, and the names of all agents, for who woke it."""

    name: str
    names: frozenset[str]


def read(path: Path, scratch: Path) -> list[Turn]:
    """The turns of an agent, in order. Raises UnreadableError, UnknownLayoutError, CorruptError, FileNotFoundError."""

    def found(connection: sqlite3.Connection) -> list[Turn]:
        rows = sqlite.rows(connection, "turn_stats", ALLOWED, REQUIRED, "ORDER BY id")
        return [turn for turn in map(_turn, rows) if turn is not None]

    return sqlite.read(path, scratch, ALLOWED, found)


def session_id(turns: list[Turn]) -> str | None:
    """The session that an agent's turns are: it lives as long as its statistics, and is named after their first row."""
    return str(UUID(turns[0].made_id("agent"))) if turns else None


def records(turns: list[Turn], agent: Agent, is_covered: IsCovered) -> Iterator[Item | Group]:
    """The agent's session and, of each turn, its run, its state at the end, its claim, and its usage: day by day."""
    session = session_id(turns)
    if session is None:
        return
    started_at, ended_at = turns[0].started_at, turns[-1].ended_at
    yield Item(
        wire.SESSIONS, (Constant("hyperhive"), Constant("agent"), session),
        {
            "session_id": session, "agent_name": agent.name, "evidence": "state", "session_kind": "agent_session",
            "started_at": started_at, "updated_at": ended_at,
        },
        (started_at, ended_at),
    )  # fmt: skip
    by_day = sorted(turns, key=lambda turn: (turn.started_at.date(), turn.number))
    for day, found in groupby(by_day, lambda turn: turn.started_at.date()):
        told = [(turn, is_covered(turn)) for turn in found]
        content = repr((session, agent.name, sorted(agent.names), [(turn.row, covered) for turn, covered in told]))
        yield Group(f"{session}/{day}", content, len(told), partial(_records, told, session, agent))


def _records(told: list[tuple[Turn, bool]], session: str, agent: Agent) -> Iterator[Record]:
    for turn, is_covered in told:
        yield from _usage(turn, session, agent, is_covered=is_covered)
        yield _claim(turn, session)
        yield from _run(turn, session)
        yield _state(turn, session, agent)


def _turn(row: sqlite.Values) -> Turn | None:
    number, started_at, ended_at = (row.get(name) for name in ("id", "started_at", "ended_at"))
    began, ended = epoch_time(started_at), epoch_time(ended_at)
    if not isinstance(number, int) or began is None or ended is None:
        return None
    millis = row.get("duration_ms")
    seconds = millis / 1000 if isinstance(millis, int) and 0 <= millis < wire.MAX_MILLISECONDS else None
    return Turn(number, began, ended, seconds, row)


def _usage(turn: Turn, session: str, agent: Agent, *, is_covered: bool) -> Iterator[Record]:
    """The turn and its calls. What was sent before its transcript could be read is taken back (`is_covered`)."""
    shared = _shared(turn, session) | {"agent_role": "agent", "is_covered": is_covered}
    read, written = turn.count(COUNTS[2]), turn.count(COUNTS[3])
    result = turn.row.get("result_kind")
    values = shared | {
        "turn_grain": "turn", "request_kind": "message", "model": turn.row.get("model"), "iteration": turn.number,
        "input_tokens": turn.count(COUNTS[0]) + read + written, "cache_read_input_tokens": read,
        "cache_write_input_tokens": written, "output_tokens": turn.count(COUNTS[1]),
        "stop_reason": "error" if result in ERRORS else "stop" if result == "ok" else "other",
        # A turn that failed has no result, and its numbers are 0 whatever it used.
        "is_final": result not in ERRORS, "is_sidechain": False,
    }  # fmt: skip
    key = (Constant("hyperhive"), Constant("turn"), *turn.key)
    yield _observed(Record(wire.LLM_TURNS, key, values, turn.ended_at, told_apart_by=(agent.name,), is_turn=True))
    for place, (tool, calls) in enumerate(_calls(turn)):
        call = shared | {"tool_name": tool, "origin": "event", "is_final": True, "is_sidechain": False}
        for number in range(calls):
            yield _observed(Record(wire.TOOL_CALLS, (*key, place, number), call, turn.ended_at))


def _observed(record: Record) -> Record:
    """A record of which a later pass may say that transcripts cover it. One that they cover from the start never
    leaves: it lacks the part `row`, which is there once it was seen without them."""
    is_covered = record.values["is_covered"] is True
    parts = {"stats": Part((int(not is_covered),), record.values)}
    if not is_covered:
        parts["row"] = Part((0,), {})
    return Record(
        record.table, record.key, at=record.at, is_turn=record.is_turn, told_apart_by=record.told_apart_by,
        parts=parts, needed=frozenset({"stats", "row"}),
    )  # fmt: skip


def _calls(turn: Turn) -> Iterator[tuple[str, int]]:
    text = turn.row.get("tool_call_breakdown_json")
    try:
        found = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return
    for tool, calls in found.items() if isinstance(found, dict) else ():
        if isinstance(calls, int) and not isinstance(calls, bool) and 0 < calls <= MAX_CALLS:
            yield tool, calls


def _claim(turn: Turn, session: str) -> Record:
    read, written = turn.count(COUNTS[2]), turn.count(COUNTS[3])
    values = {
        "session_id": session, "turn_id": str(UUID(turn.made_id("turn"))), "claimed_by": "turn_stats",
        "model": turn.row.get("model"), "turns": 1, "input_tokens": turn.count(COUNTS[0]) + read + written,
        "cache_read_input_tokens": read, "cache_write_input_tokens": written, "output_tokens": turn.count(COUNTS[1]),
        "is_cumulative": False, "started_at": turn.started_at, "ended_at": turn.ended_at,
    }  # fmt: skip
    return Record(wire.CONTROL_TOTALS, (Constant("turn_stats"), *turn.key), values, turn.ended_at)


def _run(turn: Turn, session: str) -> Iterator[Record]:
    result = turn.row.get("result_kind")
    run = {"session_id": session, "run_id": turn.made_id("run")[:12]}
    began = run | {"kind": "started", "occurred_at": turn.started_at, "time_basis": "utc"}
    yield Record(wire.AGENT_RUNS, (Constant("hyperhive"), Constant("started"), *turn.key), began, turn.started_at)
    ended = run | {
        "kind": "failed" if result in ERRORS else "completed",
        "outcome": "failed" if result in ERRORS else "success" if result == "ok" else "other",
        "error_class": ERRORS.get(str(result)), "tokens_used": turn.tokens,
        "tool_calls_used": turn.count("tool_call_count"), "duration_seconds": turn.seconds,
        "occurred_at": turn.ended_at, "time_basis": "utc",
    }  # fmt: skip
    yield Record(wire.AGENT_RUNS, (Constant("hyperhive"), Constant("ended"), *turn.key), ended, turn.ended_at)


def _state(turn: Turn, session: str, agent: Agent) -> Record:
    """What was open when the turn ended, how full its last call's context was (0: not known), and who woke it."""
    woken_by = turn.row.get("wake_from")
    context = sum(turn.count(name) for name in LAST if name != "last_output_tokens")
    values = _shared(turn, session) | {
        "kind": "turn_completed", "agent_role": "agent", "seconds": turn.seconds, "context_tokens": context or None,
        "wake_kind": WAKES.get(str(woken_by), "agent" if woken_by in agent.names else "other"),
        "open_threads": turn.row.get("open_threads_count"), "open_reminders": turn.row.get("open_reminders_count"),
    }  # fmt: skip
    key = (Constant("hyperhive"), Constant("turn_completed"), *turn.key)
    return Record(wire.STATUS_EVENTS, key, values, turn.ended_at)


def _shared(turn: Turn, session: str) -> dict[str, object]:
    return {"session_id": session, "occurred_at": turn.ended_at, "time_basis": "utc"}
