"""Arrival days: the first one of a landing, and what the wire holds of each.

Does not belong here: finding batches (landing.py), loading them (load.py), partitions (defs/partitions.py).
"""

from collections import defaultdict
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb

from pipelines.contract.keys import parse_manifest_key
from pipelines.contract.wire import TABLES
from pipelines.home import replace_file
from pipelines.store import Store
from pipelines.warehouse.landing import ROOT

EARLIEST = date(2020, 1, 1)  # a store's clock before that is wrong
Counts = dict[date, dict[str, int]]


def first_day(file: Path) -> date:
    """The first arrival day as it was noted, between EARLIEST and today; today if nothing was noted."""
    today = datetime.now(UTC).date()
    try:
        noted = date.fromisoformat(file.read_text("utf-8").strip())
    except (OSError, ValueError):
        return today
    return min(max(noted, EARLIEST), today)


def note_first_day(file: Path, store: Store) -> None:
    """Note the day on which the first batch of a landing arrived, once; an empty landing leaves no note.

    Raises StoreUnavailableError, StoreRefusedError, OSError.
    """
    if not file.exists():
        days = [entry.received_at.date() for entry in store.list(ROOT) if parse_manifest_key(entry.key) is not None]
        if days:
            replace_file(file, f"{min(days)}\n".encode())


def rows_by_day(connection: duckdb.DuckDBPyConnection, first: date, last: date) -> dict[str, Counts]:
    """Rows of each wire table by arrival day, both days included; with the token sums of tables that have tokens.

    The sums are of all tenants and may be greater than a BIGINT.
    """
    found: dict[str, Counts] = {}
    for table in TABLES:
        tokens = [name for name in ("input_tokens", "output_tokens") if name in table.by_name]
        sums = "".join(f", sum({name}) AS {name}" for name in tokens)
        found[table.name] = _by_day(
            connection, f"SELECT _received_at::DATE AS day, count(*) AS rows{sums} FROM wire.{table.name}"
            " WHERE day BETWEEN $first AND $last GROUP BY day", first, last,
        )  # fmt: skip
    return found


def batches_by_day(connection: duckdb.DuckDBPyConnection, first: date, last: date) -> Counts:
    """Batches of the ledger by arrival day and status, and what became of their rows."""
    return _by_day(
        connection,
        """
        SELECT received_at::DATE AS day, count(*) AS batches,
            count(*) FILTER (WHERE status = 'loaded') AS loaded,
            count(*) FILTER (WHERE status = 'quarantined') AS quarantined,
            count(*) FILTER (WHERE status = 'suppressed') AS suppressed,
            count(*) FILTER (WHERE status = 'tombstone') AS tombstones,
            coalesce(sum(rows_new), 0) AS rows_new,
            coalesce(sum(rows_duplicate), 0) AS rows_duplicate,
            coalesce(sum(rows_conflict), 0) AS rows_conflict,
            coalesce(sum(input_tokens_new), 0) AS input_tokens_new,
            coalesce(sum(output_tokens_new), 0) AS output_tokens_new
        FROM wire.batches WHERE day BETWEEN $first AND $last GROUP BY day
        """,
        first,
        last,
    )


def quarantined_by_day(connection: duckdb.DuckDBPyConnection, first: date, last: date) -> dict[date, dict[str, int]]:
    """Refused batches by arrival day and reason."""
    found: dict[date, dict[str, int]] = defaultdict(dict)
    rows = connection.execute(
        "SELECT received_at::DATE AS day, reason, count(*) FROM wire.batches"
        " WHERE status = 'quarantined' AND day BETWEEN $first AND $last GROUP BY ALL ORDER BY ALL",
        {"first": first, "last": last},
    ).fetchall()
    for day, reason, count in rows:
        found[day][str(reason)] = int(count)
    return dict(found)


def _by_day(connection: duckdb.DuckDBPyConnection, query: str, first: date, last: date) -> Counts:
    connection.execute("SET TimeZone = 'UTC'")
    result = connection.execute(query, {"first": first, "last": last})
    names = [column[0] for column in result.description[1:]]
    return {day: {n: int(v or 0) for n, v in zip(names, counts, strict=True)} for day, *counts in result.fetchall()}
