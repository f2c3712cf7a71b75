"""What would leave, shown before anything does: the very rows and columns, made by the very code that ships.

It works on a copy of the device's state in memory and changes nothing.
Does not belong here: printing (pipelines/commands).
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipelines.contract.wire import BY_NAME, contract_hash
from pipelines.device import consent, enrolment
from pipelines.device.blocks import pack
from pipelines.device.collect import Collector, Progress
from pipelines.device.consent import Consent, History, Scope
from pipelines.device.errors import DeviceError
from pipelines.device.redact import Redactor
from pipelines.device.spool import to_parquet
from pipelines.device.state import MEMORY, Counts, State
from pipelines.home import Home


@dataclass(frozen=True)
class Preview:
    """Rows by table as they would leave, and what became of everything else."""

    consent: str
    is_outdated: bool
    """The consent was granted for another contract: nothing of this leaves before it is granted again."""
    history: History
    tables: dict[str, list[dict[str, Any]]]
    counts: Counts
    problems: tuple[str, ...] = ()
    """Homes that were not read, because the consent does not cover them or they cannot be."""
    passed_over: tuple[str, ...] = ()
    """Folders that look like a session's and are not read: they lie where no known version of the source keeps them."""


def preview(home: Home, homes: Sequence[Path], *, progress: Progress | None = None) -> Preview:
    """What the next shipping would send; while consent is paused, the one after it is resumed. Without consent: what a
    grant with history would send.

    Raises UsageError, DeviceError.
    """
    enrolled = enrolment.require(home)
    now = datetime.now(UTC)
    path = home.device / "state.db"
    with _readable(), closing(State(MEMORY)) as state:
        if path.exists():
            with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as source:
                state.copy_from(source)
        granted = consent.current(state)
        shown = granted if granted and granted.is_open else None
        book = shown or Consent("0" * 32, "granted", now, "include", contract_hash())
        redactor = Redactor(enrolment.tenant_key(home))
        collector = Collector(
            state, enrolled, redactor, book, now=now, progress=progress, scratch=home.device / "copy-preview"
        )
        collector.run(homes)
        total = Counts()
        for counts in collector.counted:
            total.add(counts)
        return Preview(
            shown.state if shown else "none", book.is_outdated, book.history, state.waiting_rows(), total,
            tuple(collector.problems), tuple(map(str, collector.passed_over)),
        )  # fmt: skip


@dataclass(frozen=True)
class Found:
    """What lies in homes before anything is granted. `rows` and `bytes`: of all of it as it would leave, once.

    `sessions`: by agent runtime. `first`, `last`: UTC times of the oldest and the newest turn, if any has one.
    """

    sessions: dict[str, int]
    first: datetime | None
    last: datetime | None
    rows: int
    bytes: int
    problems: tuple[str, ...]


def found(home: Home, homes: Sequence[Path], scope: Scope, *, progress: Progress | None = None) -> Found:
    """What a grant of this scope is about, also what was sent under an earlier one. Raises UsageError, DeviceError."""
    enrolled = enrolment.require(home)
    now = datetime.now(UTC)
    book = Consent("0" * 32, "granted", now, "include", contract_hash(), scope)
    redactor = Redactor(enrolment.tenant_key(home))
    with closing(State(MEMORY)) as state:
        collector = Collector(
            state, enrolled, redactor, book, now=now, progress=progress, scratch=home.device / "copy-preview"
        )
        collector.run(homes)
        tables = state.waiting_rows()
    sessions: dict[str, set[str]] = {}
    turns = [*tables.get("llm_turns", ()), *tables.get("node_steps", ())]
    for row in (*tables.get("sessions", ()), *turns):
        sessions.setdefault(row.get("agent_runtime") or "hive", set()).add(row["session_id"])
    times = [row.get("occurred_at") or row.get("tool_started_at") for row in turns]
    at = sorted(time for time in times if time)
    size = sum(len(to_parquet(BY_NAME[name], [pack(name, rows)])[0]) for name, rows in tables.items())
    return Found(
        {runtime: len(names) for runtime, names in sorted(sessions.items())}, at[0] if at else None,
        at[-1] if at else None, sum(map(len, tables.values())), size, tuple(collector.problems),
    )  # fmt: skip


@contextmanager
def _readable() -> Iterator[None]:
    """A damaged state shows itself when it is copied, or at any page of the copy."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise DeviceError(
            f"the state of this device cannot be read: {error}; ship, which sets a damaged one aside, then look again"
        ) from error
