"""The wire's tables in DuckDB's words: contract columns, then the lineage the loader adds (names begin with `_`).

Does not belong here: loading rows (warehouse/load.py).
"""

from pipelines.contract.table import DUCKDB, Column, Table
from pipelines.contract.wire import TABLES

LINEAGE: dict[str, tuple[str, str]] = {
    "tenant_id": (
        "VARCHAR",
        "The tenant of the device that sent the row; taken from the batch's key, never from a row.",
    ),
    "region": ("VARCHAR", "The region the tenant's data stays in; from the batch's key."),
    "_user_id": ("VARCHAR", "The user enrolled on the device when the batch was sealed."),
    "_device_id": ("VARCHAR", "The device that sent the row first."),
    "_manifest_key": ("VARCHAR", "The batch that brought the row."),
    "_received_at": ("TIMESTAMPTZ", "When the batch arrived, by the store's clock."),
    "_ingest_seq": ("BIGINT", "The load that brought the row; rises with every load."),
}

# What the loader itself writes down. One row of `batches` is the commit mark of one batch.
BOOKS: dict[str, dict[str, tuple[str, str]]] = {
    "batches": {
        "manifest_key": ("VARCHAR PRIMARY KEY", "The batch's commit object."),
        "manifest_sha256": ("VARCHAR", "Its content."),
        "tenant_id": ("VARCHAR", "From the key."),
        "region": ("VARCHAR", "From the key."),
        "user_id": ("VARCHAR", "The user enrolled on the device when the batch was sealed."),
        "device_id": ("VARCHAR", "From the key."),
        "epoch": ("VARCHAR", "Which life of the device's state."),
        "seq": ("BIGINT", "Place in the epoch's chain."),
        "status": ("VARCHAR", "loaded, quarantined, or tombstone: the device could not send it."),
        "reason": ("VARCHAR", "Why it was quarantined or could not be sent."),
        "rows_in": ("BIGINT", "Rows of all its tables."),
        "rows_new": ("BIGINT", "Rows that were new."),
        "rows_duplicate": ("BIGINT", "Rows the warehouse already had."),
        "rows_conflict": ("BIGINT", "Rows with a known id and other facts: set aside."),
        "received_at": ("TIMESTAMPTZ", "By the store's clock."),
        "loaded_at": ("TIMESTAMPTZ", "By the loader's clock."),
        "ingest_seq": ("BIGINT", "The load."),
    },
    "row_counts": {
        "manifest_key": ("VARCHAR", "The batch."),
        "table_name": ("VARCHAR", "The wire table."),
        "rows_in": ("BIGINT", "Rows of the object."),
        "rows_new": ("BIGINT", "Rows that were new."),
        "rows_duplicate": ("BIGINT", "Rows the warehouse already had."),
        "rows_conflict": ("BIGINT", "Rows set aside."),
        "turn_rows_duplicate": ("BIGINT", "Of the duplicates, those a naive sum would count: turns and steps."),
        "turn_rows_conflict": ("BIGINT", "Of the rows set aside, those a naive sum would count."),
        "tenant_id": ("VARCHAR", "From the batch's key."),
        "_ingest_seq": ("BIGINT", "The load."),
    },
    "conflicts": {
        "table_name": ("VARCHAR", "The wire table."),
        "tenant_id": ("VARCHAR", "From the batch's key."),
        "record_id": ("VARCHAR", "The identity both rows claim."),
        "kept_hash": ("VARCHAR", "Hash of the facts that were kept: those that arrived first."),
        "other_hash": ("VARCHAR", "Hash of the facts set aside."),
        "manifest_key": ("VARCHAR", "The batch that brought the other facts."),
        "_ingest_seq": ("BIGINT", "The load."),
    },
    "touched_sessions": {
        "tenant_id": ("VARCHAR", "From the batch's key."),
        "session_id": ("VARCHAR", "A session that a load brought rows of: what the marts must look at again."),
        "_ingest_seq": ("BIGINT", "The load."),
    },
}


def _column(column: Column) -> str:
    return f"{column.name} {DUCKDB[column.type]}{' NOT NULL' if column.required else ''}"


def create_table(table: Table) -> str:
    """The statement that makes one wire table if it is absent."""
    columns = [_column(c) for c in table.columns] + [f"{name} {kind} NOT NULL" for name, (kind, _) in LINEAGE.items()]
    return f"CREATE TABLE IF NOT EXISTS wire.{table.name} (\n    " + ",\n    ".join(columns) + "\n)"


def widen_wire() -> list[str]:
    """Every statement that gives a wire made by an earlier release the columns that came within a version."""
    return [
        f"ALTER TABLE wire.{table.name} ADD COLUMN IF NOT EXISTS {_column(column)}"
        for table in TABLES
        for column in table.columns
        if column.is_addition
    ]


def create_wire() -> list[str]:
    """Every statement that makes the wire schema if it is absent. Row tables carry no index: most replay bugs of the
    engine's log involve one, and a load removes duplicates by a join."""
    books = [
        f"CREATE TABLE IF NOT EXISTS wire.{book} (\n    "
        + ",\n    ".join(f"{name} {kind}" for name, (kind, _) in columns.items())
        + "\n)"
        for book, columns in BOOKS.items()
    ]
    return ["CREATE SCHEMA IF NOT EXISTS wire", *map(create_table, TABLES), *books]
