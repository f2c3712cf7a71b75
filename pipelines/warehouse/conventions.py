"""Names the sessions to build again after somebody said how a source counts its cache tokens.

Books change without a load, and turns are built by touched sessions. Does not belong here: what a convention makes of
a turn (dbt_project/macros/cache_convention.sql), the book (pipelines/billing/books.py).
"""

from collections.abc import Sequence
from typing import Any

import duckdb

from pipelines.warehouse.load import next_seq

TOUCH = """
    INSERT INTO wire.touched_sessions BY NAME
    SELECT DISTINCT tenant_id, session_id, $seq AS _ingest_seq FROM wire.llm_turns
    WHERE cache_read_input_tokens > 0 OR cache_write_input_tokens > 0
"""


def touch(connection: duckdb.DuckDBPyConnection, rows: Sequence[dict[str, Any]]) -> bool:
    """Touch every session with cache tokens if the book's `rows` say other than the warehouse has; whether it does.

    Called before the book replaces what the warehouse has: a run that ends in between touches them once more.
    """
    if not _exists(connection, "wire", "llm_turns") or rows == _loaded(connection):
        return False
    connection.execute(TOUCH, {"seq": next_seq(connection)})
    return True


def _loaded(connection: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    if not _exists(connection, "billing", "cache_conventions"):
        return []
    found = connection.execute("SELECT * FROM billing.cache_conventions")
    names = [column[0] for column in found.description]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def _exists(connection: duckdb.DuckDBPyConnection, schema: str, table: str) -> bool:
    found = "SELECT 1 FROM duckdb_tables() WHERE schema_name = ? AND table_name = ?"
    return connection.execute(found, [schema, table]).fetchone() is not None
