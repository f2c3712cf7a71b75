"""The host's broker: messages, approvals, questions and reminders as kinds, states and times, never a word of them.

Of a reminder's error its class leaves. Does not belong here: turns of agents (turns.py).
"""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from pipelines.contract import wire
from pipelines.contract.keys import Constant
from pipelines.device.clock import epoch_time
from pipelines.device.readers import sqlite
from pipelines.device.readers.base import Item

ALLOWED: sqlite.Allowed = {
    "messages": frozenset({"id", "sender", "recipient", "sent_at", "delivered_at", "in_reply_to"}),
    "approvals": frozenset({"id", "agent", "kind", "requested_at", "status", "resolved_at"}),
    "operator_questions": frozenset({"id", "asker", "target", "multi", "asked_at", "deadline_at", "answered_at"}),
    "reminders": frozenset({"id", "agent", "due_at", "created_at", "sent_at", "attempt_count", "last_error"}),
}
STATUSES = {"pending": "open", "approved": "approved", "denied": "denied"}
OPERATOR, EVERYBODY = "operator", "*"


def read(path: Path, scratch: Path) -> list[Item]:
    """One observation of each request. Raises UnreadableError, UnknownLayoutError, CorruptError, FileNotFoundError."""
    return sqlite.read(path, scratch, ALLOWED, lambda connection: list(_found(connection)))


def _found(connection: sqlite3.Connection) -> Iterator[Item]:
    for row in _rows(connection, "messages", "sent_at"):
        yield _item("message", row, row["sender"], row["recipient"], {
            "status": "open" if row["delivered_at"] is None else "delivered", "reply_to_number": row["in_reply_to"],
            "requested_at": row["sent_at"], "resolved_at": row["delivered_at"],
        })  # fmt: skip
    for row in _rows(connection, "approvals", "requested_at"):
        yield _item("approval", row, row["agent"], OPERATOR, {
            "status": STATUSES.get(str(row["status"]), "other"), "purpose": row["kind"],
            "requested_at": row["requested_at"], "resolved_at": row["resolved_at"],
        })  # fmt: skip
    for row in _rows(connection, "operator_questions", "asked_at"):
        yield _item("question", row, row["asker"], row["target"] or OPERATOR, {
            "status": "open" if row["answered_at"] is None else "answered", "requested_at": row["asked_at"],
            "due_at": row["deadline_at"], "resolved_at": row["answered_at"],
        })  # fmt: skip
    for row in _rows(connection, "reminders", "created_at"):
        yield _item("reminder", row, row["agent"], row["agent"], {
            "status": "open" if row["sent_at"] is None else "delivered", "attempts": row["attempt_count"],
            "error_class": row["last_error"],
            "requested_at": row["created_at"], "due_at": row["due_at"], "resolved_at": row["sent_at"],
        })  # fmt: skip


def _rows(connection: sqlite3.Connection, table: str, made_at: str) -> Iterator[sqlite.Values]:
    if sqlite.has_table(connection, table):
        yield from sqlite.rows(connection, table, ALLOWED, frozenset({"id", made_at}))


def _item(kind: str, row: sqlite.Values, asker: object, asked: object, values: sqlite.Values) -> Item:
    times = {name: epoch_time(values.get(name)) for name in ("requested_at", "due_at", "resolved_at")}
    found = {
        "kind": kind, "number": row["id"], "agent_name": asker, "asked_name": asked,
        "is_to_operator": asked == OPERATOR, "is_broadcast": asked == EVERYBODY, **values, **times,
    }  # fmt: skip
    number = row["id"] if isinstance(row["id"], int) else None
    key = (Constant("broker"), Constant(kind), number, values["requested_at"] if times["requested_at"] else None)
    return Item(wire.REQUESTS, key, found, tuple(times.values()))
