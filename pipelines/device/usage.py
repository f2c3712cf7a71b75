"""What this device itself used, summed by batch, UTC day and user: what a quota snapshot may not have counted yet.

The sums live in the state database and change in the same transaction as the rows they sum: staged rows stand under
`WAITING`, and move to their batch when it is cut. So a check never reads rows, and never counts one twice.
Does not belong here: budgets and answers (quota.py), what a batch is (spool.py), writing rows (state.py).
"""

import json
import sqlite3
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from decimal import Context, Decimal
from typing import Any, NamedTuple

from pipelines.contract.quota import EXACT_DIGITS

WAITING = 0  # as in state.py, which imports more than a check has time for
ANY_DAY = ""  # of a turn whose time is unknown: it counts in every period until the warehouse has counted it
TABLES = ("llm_turns", "node_steps")
COLUMNS = (
    "session_id", "is_covered", "step_index", "tool_started_at", "file_modified_at", "occurred_at",
    "reported_cost_usd", "input_tokens", "output_tokens",
)  # fmt: skip
"""What is looked at of their rows."""
_UNIT = 10**10
_EXACT = Context(prec=EXACT_DIGITS)

# A cost has 20 decimals and SQLite's integers 19 digits: it is kept as two numbers, which SQLite adds exactly.
# `step_session_id` is the session of L3 steps, empty for events: once a session has an event, its steps are copies.
SCHEMA = """
CREATE TABLE IF NOT EXISTS usage (
    seq INTEGER NOT NULL, day TEXT NOT NULL, user_id TEXT NOT NULL, step_session_id TEXT NOT NULL,
    turns INTEGER NOT NULL, tokens INTEGER NOT NULL, unpriced_tokens INTEGER NOT NULL,
    cost_high INTEGER NOT NULL, cost_low INTEGER NOT NULL,
    PRIMARY KEY (seq, day, user_id, step_session_id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS event_session (session_id TEXT PRIMARY KEY) WITHOUT ROWID;
"""
FORGOTTEN = ("usage", "event_session")
"""The tables that a withdrawal empties."""


class _Key(NamedTuple):
    day: str
    user: str
    step_session: str


_Sums = dict[_Key, list[int]]  # turns, tokens, unpriced tokens, high and low cost


class Used(NamedTuple):
    """Turns, tokens (input with cache, and output), those without a reported cost, and the reported cost in USD."""

    turns: int = 0
    tokens: int = 0
    unpriced_tokens: int = 0
    reported_cost_usd: Decimal = Decimal(0)


class Line(NamedTuple):
    """The sums of one UTC day for one user ('' if the user is not known), of the counted batches or of the rest."""

    day: str
    user: str
    is_counted: bool
    used: Used


def install(db: sqlite3.Connection) -> None:
    """Make the tables if they are not there, and count what an older version left staged, in the caller's transaction.

    Without the latter the next cut would take away what was never added.
    """
    if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'usage'").fetchone():
        return
    for statement in SCHEMA.split(";"):
        db.execute(statement)
    rows = db.execute("SELECT row FROM staged WHERE table_name = 'llm_turns'").fetchall()
    db.executemany(_ADD_SESSION, [(_session(json.loads(row)),) for (row,) in rows])
    for seq, table in db.execute("SELECT DISTINCT seq, table_name FROM staged").fetchall():
        if table in TABLES:
            found = db.execute("SELECT row FROM staged WHERE seq = ? AND table_name = ?", (seq, table)).fetchall()
            _add(db, seq, _summed(db, table, (json.loads(row) for (row,) in found)))


def staged(
    db: sqlite3.Connection, table: str, rows: Sequence[Mapping[str, Any]], *, replaced: Sequence[Mapping[str, Any]] = ()
) -> None:
    """Count rows that were staged, in the transaction that stages them; `replaced`: waiting rows that they correct."""
    if table == "llm_turns":
        db.executemany(_ADD_SESSION, [(session,) for session in {_session(row) for row in rows}])
    _add(db, WAITING, _summed(db, table, replaced), sign=-1)
    _add(db, WAITING, _summed(db, table, rows))


def cut(db: sqlite3.Connection, seq: int, table: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Move the sums of a batch's rows of a table from `WAITING` to the batch, in the transaction that cuts it.

    Nowhere else: a batch is cut once, but may be sealed again.
    """
    sums = _summed(db, table, rows)
    _add(db, WAITING, sums, sign=-1)
    _add(db, seq, sums)
    db.execute(f"DELETE FROM usage WHERE seq = {WAITING} AND turns = 0")


def prune(db: sqlite3.Connection, *, before: date, counted: Iterable[tuple[int, int]]) -> None:
    """Forget days that no budget asks for any more, and turns without a day once their batch is counted.

    What waits is kept: the cut takes it away again, and would leave less than nothing.
    """
    db.execute("DELETE FROM usage WHERE seq <> ? AND day <> ? AND day < ?", (WAITING, ANY_DAY, before.isoformat()))
    for first, last in counted:
        db.execute("DELETE FROM usage WHERE day = ? AND seq BETWEEN ? AND ?", (ANY_DAY, max(first, 1), last))


def lines(db: sqlite3.Connection, *, first: date, end: date, counted: Sequence[tuple[int, int]]) -> list[Line]:
    """The sums of the UTC days from `first` to before `end`, and of turns without a day. Raises sqlite3.Error.

    `counted`: first and last number of the batches that the warehouse has counted, ascending.
    """
    starts, ends = [run[0] for run in counted], [run[1] for run in counted]

    def is_counted(seq: int) -> bool:
        place = bisect_right(starts, seq)
        return place > 0 and seq <= ends[place - 1]

    # Summed in there: a month offline holds thousands of lines, and a budget asks for a handful of sums.
    db.create_function("is_counted", 1, is_counted, deterministic=True)
    found = db.execute(
        "SELECT day, user_id, is_counted(seq) AS is_in, sum(turns), sum(tokens), sum(unpriced_tokens), sum(cost_high),"
        " sum(cost_low) FROM usage WHERE (day >= ? AND day < ? OR day = ?) AND (step_session_id = '' OR NOT EXISTS"
        " (SELECT 1 FROM event_session WHERE session_id = step_session_id)) GROUP BY day, user_id, is_in",
        (first.isoformat(), end.isoformat(), ANY_DAY),
    )
    return [
        Line(day, user, bool(is_in), Used(turns, tokens, unpriced, _joined(high, low)))
        for day, user, is_in, turns, tokens, unpriced, high, low in found
    ]


def total(parts: Iterable[Used]) -> Used:
    """The sum, exact."""
    turns = tokens = unpriced = 0
    cost = Decimal(0)
    for part in parts:
        turns, tokens, unpriced = turns + part.turns, tokens + part.tokens, unpriced + part.unpriced_tokens
        cost = _EXACT.add(cost, part.reported_cost_usd)
    return Used(turns, tokens, unpriced, cost)


def _summed(db: sqlite3.Connection, table: str, rows: Iterable[Mapping[str, Any]]) -> _Sums:
    """Sums of rows as they were staged: values as the redactor made them, or as their JSON gave them back."""
    sums: _Sums = {}
    users: dict[str, str] = {}
    for row in rows:
        if row.get("is_covered") is True:  # its responses are counted
            continue
        session = _session(row)
        if table == "node_steps":
            if row.get("step_index", 0) < 0:  # a compaction is no turn
                continue
            time, cost, step_session = row.get("tool_started_at") or row.get("file_modified_at"), None, session
        else:
            time, cost, step_session = row.get("occurred_at"), row.get("reported_cost_usd"), ""
        if session not in users:
            users[session] = _user(db, session)
        tokens = int(row.get("input_tokens", 0)) + int(row.get("output_tokens", 0))
        # A UTC time begins with its day, as a datetime and as the text it was staged as.
        key = _Key(str(time)[:10] if time else ANY_DAY, users[session], step_session)
        so_far = sums.setdefault(key, [0, 0, 0, 0, 0])
        for place, number in enumerate((1, tokens, tokens if cost is None else 0, *_split(cost))):
            so_far[place] += number
    return sums


_ADD = """
INSERT INTO usage VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET turns = turns + excluded.turns,
    tokens = tokens + excluded.tokens, unpriced_tokens = unpriced_tokens + excluded.unpriced_tokens,
    cost_high = cost_high + excluded.cost_high, cost_low = cost_low + excluded.cost_low
"""


_ADD_SESSION = "INSERT OR IGNORE INTO event_session VALUES (?)"


def _add(db: sqlite3.Connection, seq: int, sums: _Sums, *, sign: int = 1) -> None:
    db.executemany(_ADD, [(seq, *key, *(sign * number for number in numbers)) for key, numbers in sums.items()])


def _session(row: Mapping[str, Any]) -> str:
    return str(row.get("session_id", ""))


def _user(db: sqlite3.Connection, session: str) -> str:
    """Who a session was bound to when it was first seen: it may be another one than is enrolled now."""
    row = db.execute("SELECT user_id FROM session WHERE session_id = ?", (session,)).fetchone()
    return str(row[0]) if row else ""


def _split(cost: object) -> tuple[int, int]:
    """A cost as whole units of 1e-10 USD and the rest in units of 1e-20."""
    if cost is None:
        return 0, 0
    return divmod(int(Decimal(str(cost)).scaleb(20, _EXACT)), _UNIT)


def _joined(high: int, low: int) -> Decimal:
    return Decimal(high * _UNIT + low).scaleb(-20, _EXACT)
