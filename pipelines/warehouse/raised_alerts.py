"""Alerts about the pipeline itself: a file of lines that only grows, and its way into the warehouse for `mart_alerts`.

A line names a job, a check or an asset, and a run; nobody's tenant, user or device, so that an erasure finds nothing
here. Does not belong here: finding and telling (defs/operation_alerts.py), alerts about usage (models/analytics/ops).
"""

import csv
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import duckdb

from pipelines.home import ROOT, private_folder

KINDS = ROOT / "dbt_project" / "seeds" / "alert_kinds.csv"
COLUMNS = ("alert_id", "kind", "subject", "run_id", "raised_at")


@dataclass(frozen=True)
class Raised:
    """An alert as it began. `subject` is a job, a check or an asset; `raised_at` is UTC."""

    kind: str
    subject: str
    run_id: str | None
    raised_at: datetime

    @property
    def alert_id(self) -> str:
        """The same for each time that the same beginning is found."""
        parts = (self.kind, self.subject, self.raised_at.isoformat())
        return hashlib.sha256("|".join(parts).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class AlertKind:
    """What a kind of alert asks for: a command or an action, and the page that explains it."""

    what_to_do: str
    docs_page: str


@cache
def kinds() -> dict[str, AlertKind]:
    """Every kind of alert, from the seed that the models read too. Raises OSError."""
    with KINDS.open(encoding="utf-8", newline="") as file:
        return {row["alert_kind"]: AlertKind(row["what_to_do"], row["docs_page"]) for row in csv.DictReader(file)}


def record(book: Path, raised: Iterable[Raised]) -> None:
    """Append alerts to the book. Raises OSError."""
    lines = [
        {"alert_id": one.alert_id, "kind": one.kind, "subject": one.subject, "run_id": one.run_id,
         "raised_at": one.raised_at.isoformat()}
        for one in raised
    ]  # fmt: skip
    if not lines:
        return
    private_folder(book.parent)
    torn = book.exists() and book.stat().st_size and not book.read_bytes().endswith(b"\n")
    with open(os.open(book, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as file:  # noqa: PTH123
        # A line that was cut off by a full disk must not swallow these.
        file.write((b"\n" if torn else b"") + b"".join(json.dumps(line).encode() + b"\n" for line in lines))
        file.flush()
        os.fsync(file.fileno())


def prepare(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the table if it is absent."""
    connection.execute("CREATE SCHEMA IF NOT EXISTS operation")
    connection.execute(
        """
        CREATE TABLE IF NOT EXISTS operation.alerts
        (alert_id VARCHAR, kind VARCHAR, subject VARCHAR, run_id VARCHAR, raised_at TIMESTAMPTZ)
        """
    )


def load(connection: duckdb.DuckDBPyConnection, book: Path) -> tuple[int, int]:
    """Make `operation.alerts` what the book says, each alert once; how many there are, and how many lines of the book
    are none: torn by a full disk, or damaged."""
    found: dict[str, list[Any]] = {}
    damaged = 0
    for line in book.read_bytes().splitlines() if book.exists() else ():
        if (row := _row(line)) is None:
            damaged += 1
        else:
            found.setdefault(row[0], row)
    prepare(connection)
    connection.execute("BEGIN")
    try:
        connection.execute("DELETE FROM operation.alerts")
        if found:
            connection.executemany("INSERT INTO operation.alerts VALUES (?, ?, ?, ?, ?)", list(found.values()))
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    return len(found), damaged


def _row(line: bytes) -> list[Any] | None:
    """The values of a line; None if it is no alert."""
    try:
        values = json.loads(line)
        alert_id, kind, subject, run_id, raised_at = (values[name] for name in COLUMNS)
        at = datetime.fromisoformat(raised_at)
    except (ValueError, TypeError, KeyError):
        return None
    is_text = all(isinstance(text, str) for text in (alert_id, kind, subject))
    is_sound = is_text and (run_id is None or isinstance(run_id, str)) and at.tzinfo is not None
    return [alert_id, kind, subject, run_id, at] if is_sound else None
