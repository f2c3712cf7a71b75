"""OpenClaw's runs of sub-agents and of scheduled jobs: when they began, how they ended. Never their task or result.

Does not belong here: sessions (sessions.py), what a run used (transcripts.py).
"""

import re
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path

from pipelines.contract import wire
from pipelines.contract.keys import Constant
from pipelines.device.readers import sqlite
from pipelines.device.readers.base import Record
from pipelines.device.readers.openclaw.layout import SESSION_ID
from pipelines.device.readers.openclaw.transcripts import epoch_millis

REQUIRED = frozenset({"task_id", "runtime", "child_session_key", "status"})
ALLOWED: sqlite.Allowed = {
    "task_runs": REQUIRED | {"started_at", "ended_at", "tool_use_count", "error"},
}
KINDS = ("subagent", "cron")  # a run of the command line repeats one of these
ENDS = {
    "succeeded": ("completed", "success"), "failed": ("failed", "failed"), "timed_out": ("failed", "timeout"),
    "cancelled": ("cancelled", "stopped"), "lost": ("failed", "other"),
}  # fmt: skip
_RUN = re.compile(rf":run:(?P<session>{SESSION_ID})$", re.ASCII)


def read(path: Path, scratch: Path, sessions: Mapping[str, str]) -> list[Record]:
    """The runs of a home. `sessions`: the present session of each key.

    Raises UnreadableError, UnknownLayoutError, CorruptError, FileNotFoundError.
    """
    return sqlite.read(path, scratch, ALLOWED, lambda connection: list(_found(connection, sessions)))


def _found(connection: sqlite3.Connection, sessions: Mapping[str, str]) -> Iterator[Record]:
    if not sqlite.has_table(connection, "task_runs"):  # an early version's state
        return
    for row in sqlite.rows(connection, "task_runs", ALLOWED, REQUIRED):
        child = str(row["child_session_key"] or "")
        match = _RUN.search(child)
        session = match["session"] if match else sessions.get(child)
        if row["runtime"] not in KINDS or session is None:
            continue
        began, ended = epoch_millis(row["started_at"]), epoch_millis(row["ended_at"])
        # Who asked is named by a key only, which may be another session's by now.
        run = {"session_id": session, "time_basis": "utc"}
        key = (Constant("openclaw"), Constant("task_run"), row["task_id"])
        if began is not None:
            started = run | {"kind": "started", "occurred_at": began}
            yield Record(wire.AGENT_RUNS, (*key, Constant("started")), started, began)
        if ended is not None and row["status"] in ENDS:
            kind, outcome = ENDS[str(row["status"])]
            values = run | {
                "kind": kind, "outcome": outcome, "error_class": row["error"], "tool_calls_used": row["tool_use_count"],
                "duration_seconds": (ended - began).total_seconds() if began and ended >= began else None,
                "occurred_at": ended,
            }  # fmt: skip
            yield Record(wire.AGENT_RUNS, (*key, Constant("ended")), values, ended)
