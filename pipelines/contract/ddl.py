"""The wire's tables in DuckDB's words: contract columns, then the lineage the loader adds (names begin with `_`).

Does not belong here: loading rows (warehouse/load.py).
"""

from collections.abc import Collection

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
        "status": ("VARCHAR", "loaded, quarantined, suppressed, or tombstone: the device could not send it."),
        "reason": ("VARCHAR", "Why it was quarantined, suppressed or could not be sent."),
        "previous_manifest_sha256": (
            "VARCHAR",
            "The manifest before it in the epoch's chain, as this one says; NULL for the first.",
        ),
        "contract_hash": ("VARCHAR", "The contract the device sealed it under, as it says."),
        "consent_id": ("VARCHAR", "The consent it was sealed under, as it says."),
        "uploader_version": ("VARCHAR", "The device's version, as it says."),
        "gate_hash": ("VARCHAR", "The contract and the rules that judged it: other rules may judge otherwise."),
        "attempts": ("BIGINT", "How often it was judged: once, and once for each replay."),
        "rows_claimed": (
            "BIGINT",
            "Rows that the manifest names, also of a batch that did not load; of a tombstone those lost.",
        ),
        "rows_in": ("BIGINT", "Rows of all its tables."),
        "rows_new": ("BIGINT", "Rows that were new."),
        "rows_duplicate": ("BIGINT", "Rows the warehouse already had."),
        "rows_conflict": ("BIGINT", "Rows with a known id and other facts: set aside."),
        "input_tokens_in": ("BIGINT", "Input tokens of its turns and steps."),
        "input_tokens_new": ("BIGINT", "Of these, those of new rows."),
        "output_tokens_in": ("BIGINT", "Output tokens of its turns and steps."),
        "output_tokens_new": ("BIGINT", "Of these, those of new rows."),
        "received_at": ("TIMESTAMPTZ", "By the store's clock."),
        "loaded_at": ("TIMESTAMPTZ", "When it was answered, by the loader's clock."),
        "ingest_seq": ("BIGINT", "The load."),
    },
    "batch_objects": {
        "manifest_key": ("VARCHAR", "The batch."),
        "table_name": ("VARCHAR", "The wire table."),
        "object_key": ("VARCHAR", "Where its bytes lie; NULL for what a tombstone lost."),
        "sha256": ("VARCHAR", "Their hash, as the manifest claims."),
        "bytes": ("BIGINT", "Their number, as the manifest claims."),
        "rows_claimed": (
            "BIGINT",
            "Rows, as the manifest claims; the gate refuses a batch whose rows are not as many.",
        ),
        "input_tokens_claimed": ("BIGINT", "Input tokens, as the manifest claims; checked like the rows."),
        "output_tokens_claimed": ("BIGINT", "Output tokens, as the manifest claims; checked like the rows."),
        "tenant_id": ("VARCHAR", "From the batch's key."),
        "_ingest_seq": ("BIGINT", "The load."),
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
        "input_tokens_in": ("BIGINT", "Input tokens of the object; 0 where the table has none."),
        "input_tokens_new": ("BIGINT", "Of these, those of new rows."),
        "input_tokens_duplicate": ("BIGINT", "Of these, those of duplicates."),
        "input_tokens_conflict": ("BIGINT", "Of these, those of rows set aside."),
        "output_tokens_in": ("BIGINT", "Output tokens of the object; 0 where the table has none."),
        "output_tokens_new": ("BIGINT", "Of these, those of new rows."),
        "output_tokens_duplicate": ("BIGINT", "Of these, those of duplicates."),
        "output_tokens_conflict": ("BIGINT", "Of these, those of rows set aside."),
        "reported_cost_usd_collapsed": (
            "DECIMAL(38, 20)",
            "Reported cost of its duplicates and rows set aside: what they would have been counted with.",
        ),
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
    "released": {
        "tenant_id": ("VARCHAR", "The tenant of a turn that was held: its time lies after its arrival."),
        "record_id": ("VARCHAR", "The turn or step that somebody has looked at: it is billed on the day it claims."),
        "released_at": ("TIMESTAMPTZ", "When."),
        "_ingest_seq": ("BIGINT", "A number of its own in the row of loads: the marts look at its session again."),
    },
    "object_findings": {
        "object_key": ("VARCHAR", "An object that is not what the ledger knows."),
        "manifest_key": ("VARCHAR", "Its batch."),
        "tenant_id": ("VARCHAR", "From the batch's key."),
        "finding": ("VARCHAR", "missing, changed (other bytes), or written_again (the same bytes at another time)."),
        "expected_sha256": ("VARCHAR", "The hash that was loaded."),
        "found_sha256": ("VARCHAR", "The hash of what lies there now."),
        "found_at": ("TIMESTAMPTZ", "When it was noticed first."),
    },
    "kept_charges": {
        "_kept_name": ("VARCHAR", "The object of the store that holds the sums."),
        "tenant_id": ("VARCHAR", "Whose usage it was."),
        "model": ("VARCHAR", "The public name of the model; `unknown` for one that a person named."),
        "charge_class": (
            "VARCHAR",
            "A component of the rated lines, or reported_cost; cache_write, of all cache writes, in sums of 0.1.0.",
        ),
        "unit": ("VARCHAR", "Of the quantity."),
        "unpriced_turns": ("BIGINT", "Turns without a reported cost."),
        "quantity": ("DECIMAL(38, 20)", "What was counted of usage that is erased."),
        "usage_date": ("DATE", "UTC day."),
    },
    "operator_actions": {
        "action_id": ("VARCHAR", "The action."),
        "tenant_id": ("VARCHAR", "Whose agent."),
        "agent_id": ("VARCHAR", "Which agent, by the name that the registry gives it."),
        "session_id": ("VARCHAR", "Which of its sessions made a person act, if one did."),
        "actor_id": ("VARCHAR", "Who acted."),
        "action": ("VARCHAR", "fire or note: a person's decision, carried out by people."),
        "reason": ("VARCHAR", "derailed, obstinate, dumb, unresponsive or corrupted; no text."),
        "acted_at": ("TIMESTAMPTZ", "When it was written down."),
    },
    "touched_sessions": {
        "tenant_id": ("VARCHAR", "From the batch's key."),
        "session_id": ("VARCHAR", "A session that a load brought rows of: what the marts must look at again."),
        "_ingest_seq": ("BIGINT", "The load."),
    },
}

PRESENT = """
    SELECT table_name, column_name FROM duckdb_columns()
    WHERE database_name = current_database() AND schema_name = 'wire'
"""

# Books that hold what people decided: no batch brings them back (warehouse/rebuild.py carries them over).
DECISIONS = ("released",)


def _column(column: Column) -> str:
    return f"{column.name} {DUCKDB[column.type]}{' NOT NULL' if column.required else ''}"


def create_table(table: Table) -> str:
    """The statement that makes one wire table if it is absent."""
    columns = [_column(c) for c in table.columns] + [f"{name} {kind} NOT NULL" for name, (kind, _) in LINEAGE.items()]
    return f"CREATE TABLE IF NOT EXISTS wire.{table.name} (\n    " + ",\n    ".join(columns) + "\n)"


def widen_wire(present: Collection[tuple[str, str]]) -> list[str]:
    """Statements that give a wire made by an earlier release the columns that came since: those that were added within
    a version, and those of the books, which are the loader's own.

    `present`: names of tables and their columns, as `PRESENT` finds them.
    """
    added = [(table.name, c.name, _column(c)) for table in TABLES for c in table.columns if c.is_addition]
    added += [
        (book, name, f"{name} {kind}")
        for book, columns in BOOKS.items()
        for name, (kind, _) in columns.items()
        if "KEY" not in kind
    ]
    return [
        f"ALTER TABLE wire.{table} ADD COLUMN IF NOT EXISTS {column}"
        for table, name, column in added
        if (table, name) not in present
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
