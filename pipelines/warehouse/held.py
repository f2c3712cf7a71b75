"""Turns that are held because their time lies after their arrival, and letting them go once somebody has looked.

Does not belong here: which turns are held (dbt_project/macros/is_held.sql).
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import duckdb

from pipelines.errors import ExpectedError
from pipelines.warehouse.ducklake import until_committed
from pipelines.warehouse.load import next_seq


class NotBuiltError(ExpectedError):
    """The marts are not built yet, so nobody knows what is held."""


@dataclass(frozen=True)
class Held:
    """The held turns of one session."""

    tenant_id: str
    session_id: str
    turns: int
    tokens: int
    first_occurred_at: datetime
    last_occurred_at: datetime
    received_at: datetime


def listed(connection: duckdb.DuckDBPyConnection) -> list[Held]:
    """What is held, by session. Raises NotBuiltError."""
    _needed(connection)
    rows: list[Any] = connection.execute(
        """
        SELECT tenant_id, session_id, count(*), sum(input_tokens + output_tokens)::BIGINT, min(occurred_at),
            max(occurred_at), max(received_at)
        FROM marts.mart_held_turns GROUP BY tenant_id, session_id ORDER BY tenant_id, session_id
        """
    ).fetchall()
    return [Held(*row) for row in rows]


def release(connection: duckdb.DuckDBPyConnection, *, tenant: str, session: str | None = None) -> int:
    """Let a tenant's held turns go, or those of one session: the next build counts them on the day that they claim.

    How many turns were let go. Raises NotBuiltError.
    """
    _needed(connection)

    def work() -> int:
        bound = {"tenant": tenant, "session": session, "now": datetime.now(UTC), "seq": next_seq(connection)}
        count = connection.execute(
            "INSERT INTO wire.released BY NAME SELECT tenant_id, turn_id AS record_id, $now AS released_at,"
            " $seq AS _ingest_seq FROM marts.mart_held_turns"
            " WHERE tenant_id = $tenant AND ($session IS NULL OR session_id = $session)",
            bound,
        ).fetchone()
        connection.execute(
            "INSERT INTO wire.touched_sessions BY NAME SELECT DISTINCT tenant_id, session_id, $seq AS _ingest_seq"
            " FROM marts.mart_held_turns WHERE tenant_id = $tenant AND ($session IS NULL OR session_id = $session)",
            {name: bound[name] for name in ("tenant", "session", "seq")},
        )
        return int(count[0]) if count else 0

    return until_committed(connection, work)


def _needed(connection: duckdb.DuckDBPyConnection) -> None:
    found = connection.execute(
        "SELECT 1 FROM duckdb_tables() WHERE schema_name = 'marts' AND table_name = 'mart_held_turns'"
    ).fetchone()
    if found is None:
        raise NotBuiltError("the marts are not built yet: `apiary run` builds them")
