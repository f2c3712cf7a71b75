"""Names the sessions to build again after somebody changed a book that turns and sessions are built by.

Books change without a load, and turns are built by touched sessions. Does not belong here: what a book's rows make of
a turn (dbt_project/macros/cache_convention.sql) or a session (models/core), the books (pipelines/billing).
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import duckdb

from pipelines.warehouse import ducklake
from pipelines.warehouse.load import next_seq

# Book -> the sessions that its rows are about, those of the rows that were and of those that are.
SESSIONS = {
    "cache_conventions": """
        SELECT DISTINCT tenant_id, session_id FROM wire.llm_turns
        WHERE cache_read_input_tokens > 0 OR cache_write_input_tokens > 0
    """,
    "session_users": """
        SELECT DISTINCT tenant_id, session_id FROM wire.touched_sessions
        WHERE {'tenant_id': tenant_id, 'session_id': session_id} IN (SELECT unnest($named))
    """,
}


def touch(connection: duckdb.DuckDBPyConnection, books: Mapping[str, Sequence[dict[str, Any]]]) -> list[str]:
    """Touch the sessions of every book of SESSIONS of which `books` say other than the warehouse has; their names.

    Called before the books replace what the warehouse has: a run that ends in between touches them once more.
    """
    if not _exists(connection, "wire", "touched_sessions"):
        return []
    changed = []
    for name, sessions in SESSIONS.items():
        loaded = _loaded(connection, name)
        if books[name] == loaded:
            continue
        changed.append(name)
        values: dict[str, Any] = {}
        if "$named" in sessions:
            pairs = {(row["tenant_id"], row["session_id"]) for row in (*books[name], *loaded)}
            values["named"] = [{"tenant_id": tenant, "session_id": session} for tenant, session in sorted(pairs)]
        ducklake.until_committed(connection, partial(_touch, connection, sessions, values))
    return changed


def _touch(connection: duckdb.DuckDBPyConnection, sessions: str, values: Mapping[str, Any]) -> None:
    connection.execute(
        f"INSERT INTO wire.touched_sessions BY NAME SELECT *, $seq AS _ingest_seq FROM ({sessions})",
        {**values, "seq": next_seq(connection)},
    )


def _loaded(connection: duckdb.DuckDBPyConnection, book: str) -> list[dict[str, Any]]:
    if not _exists(connection, "billing", book):
        return []
    found = connection.execute(f"SELECT * FROM billing.{book}")
    names = [column[0] for column in found.description]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def _exists(connection: duckdb.DuckDBPyConnection, schema: str, table: str) -> bool:
    found = "SELECT 1 FROM duckdb_tables() WHERE schema_name = ? AND table_name = ?"
    return connection.execute(found, [schema, table]).fetchone() is not None
