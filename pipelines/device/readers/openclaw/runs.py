"""OpenClaw's runs of sub-agents and of scheduled jobs: when they began, how they ended. Never their task or result.

A run stands in up to three places, which are pruned at different times: it has one identity in all of them.
Does not belong here: sessions (sessions.py), what a run used (transcripts.py).
"""

import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipelines.contract import wire
from pipelines.contract.keys import Constant
from pipelines.device import lines
from pipelines.device.readers import sqlite
from pipelines.device.readers.base import Json, Part, Record
from pipelines.device.readers.openclaw.layout import SESSION_ID
from pipelines.device.readers.openclaw.transcripts import epoch_millis

TASKS = frozenset({"task_id", "runtime", "child_session_key", "status"})
SUBAGENTS = frozenset({"run_id", "child_session_key", "payload_json"})
JOBS = frozenset({"job_id", "session_id", "status", "run_at_ms"})
ALLOWED: sqlite.Allowed = {
    "task_runs": TASKS | {"run_id", "source_id", "started_at", "ended_at", "tool_use_count", "error"},
    "subagent_runs": SUBAGENTS,
    "cron_run_logs": JOBS | {"duration_ms", "error"},
}
# What each place calls an end: the kind of the record and the outcome.
TASK_ENDS = {
    "succeeded": ("completed", "success"), "failed": ("failed", "failed"), "timed_out": ("failed", "timeout"),
    "cancelled": ("cancelled", "stopped"), "lost": ("failed", "other"),
}  # fmt: skip
SUBAGENT_ENDS = {"ok": ("completed", "success"), "error": ("failed", "failed"), "timeout": ("failed", "timeout")}
JOB_ENDS = {"ok": ("completed", "success"), "error": ("failed", "failed")}
KILLED = "subagent-killed"
_RUN = re.compile(rf":run:(?P<session>{SESSION_ID})$", re.ASCII)


@dataclass(frozen=True)
class _Run:
    """A run as one place tells it. `key`: the same in all places. Of several places the one of the least rank speaks.

    `began` and `ended` are milliseconds since 1970.
    """

    key: tuple[object, ...]
    rank: int
    session_id: str
    began: object
    ended: object
    end: tuple[str, str] | None
    error: object = None
    tool_calls: object = None

    def records(self) -> Iterator[Record]:
        began, ended = epoch_millis(self.began), epoch_millis(self.ended)
        # Who asked is named by a key only, which may be another session's by now.
        run = {"session_id": self.session_id, "time_basis": "utc"}
        key = (Constant("openclaw"), *self.key)
        needed = frozenset({"run"})
        if began is not None:
            started = Part((self.rank,), run | {"kind": "started", "occurred_at": began})
            yield Record(wire.AGENT_RUNS, (*key, Constant("started")), at=began, parts={"run": started}, needed=needed)
        if ended is not None and self.end is not None:
            kind, outcome = self.end
            values = run | {
                "kind": kind, "outcome": outcome, "error_class": self.error, "occurred_at": ended,
                "duration_seconds": (ended - began).total_seconds() if began and ended >= began else None,
            }  # fmt: skip
            parts = {"run": Part((self.rank,), values)}
            if self.tool_calls is not None:
                parts["tools"] = Part((self.rank,), {"tool_calls_used": self.tool_calls})
            yield Record(wire.AGENT_RUNS, (*key, Constant("ended")), at=ended, parts=parts, needed=needed)


def read(path: Path, scratch: Path, sessions: Mapping[str, str]) -> list[Record]:
    """The runs of a home. `sessions`: the present session of each key.

    Raises UnreadableError, UnknownLayoutError, CorruptError, FileNotFoundError.
    """
    return sqlite.read(path, scratch, ALLOWED, lambda connection: _records(_found(connection, sessions)))


def subagents(found: Json, sessions: Mapping[str, str]) -> list[Record]:
    """Runs of sub-agents as `subagents/runs.json` holds them, before they had a database."""
    entries = found.get("runs")
    runs = entries.items() if isinstance(entries, dict) else ()
    return _records(_subagent(run_id, entry, sessions) for run_id, entry in runs)


def _records(runs: Iterable[_Run | None]) -> list[Record]:
    return [record for run in runs if run is not None for record in run.records()]


def _found(connection: sqlite3.Connection, sessions: Mapping[str, str]) -> Iterator[_Run | None]:
    for table, required, made in (("task_runs", TASKS, _task), ("cron_run_logs", JOBS, _job)):
        if sqlite.has_table(connection, table):  # an early version's state has none of them
            yield from (made(row, sessions) for row in sqlite.rows(connection, table, ALLOWED, required))
    if sqlite.has_table(connection, "subagent_runs"):
        for row in sqlite.rows(connection, "subagent_runs", ALLOWED, SUBAGENTS):
            yield _subagent(row["run_id"], _object(row["payload_json"]), sessions)


def _task(row: sqlite.Values, sessions: Mapping[str, str]) -> _Run | None:
    child = str(row["child_session_key"] or "")
    match = _RUN.search(child)
    session = match["session"] if match else sessions.get(child)
    # A run of the command line repeats one of these.
    key = {
        "subagent": (Constant("subagent_run"), row["run_id"] or row["task_id"]),
        "cron": (Constant("cron_run"), row["source_id"] or row["task_id"], row["started_at"]),
    }.get(str(row["runtime"]))
    if key is None or session is None:
        return None
    return _Run(
        key, 1, session, row["started_at"], row["ended_at"], TASK_ENDS.get(str(row["status"])), row["error"],
        row["tool_use_count"],
    )  # fmt: skip


def _job(row: sqlite.Values, _: Mapping[str, str]) -> _Run | None:
    began, lasted = row["run_at_ms"], row["duration_ms"]
    if row["session_id"] is None or not isinstance(began, int):  # it was skipped
        return None
    ended = began + lasted if isinstance(lasted, int) else None
    key = (Constant("cron_run"), row["job_id"], began)
    return _Run(key, 0, str(row["session_id"]), began, ended, JOB_ENDS.get(str(row["status"])), row["error"])


def _subagent(run_id: object, found: object, sessions: Mapping[str, str]) -> _Run | None:
    if not isinstance(found, dict):
        return None
    session = sessions.get(str(found.get("childSessionKey") or ""))
    if session is None:
        return None
    execution = found.get("execution")
    told = execution if isinstance(execution, dict) else found  # later versions keep times and outcome in there
    outcome = told.get("outcome")
    status, error = (outcome.get("status"), outcome.get("error")) if isinstance(outcome, dict) else (None, None)
    end = ("cancelled", "stopped") if found.get("endedReason") == KILLED else SUBAGENT_ENDS.get(str(status))
    return _Run((Constant("subagent_run"), run_id), 0, session, told.get("startedAt"), told.get("endedAt"), end, error)


def _object(text: object) -> object:
    try:
        return lines.loads(text.encode("utf-8", "surrogatepass")) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return None  # a run that is no object is none; its session still counts
