"""A warehouse written anew beside the old one: what is copied into it, and what it does not hold any more.

Does not belong here: why (erase.py), loading (load.py), building the models.
"""

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb

from pipelines.contract.ddl import BOOKS
from pipelines.contract.keys import GENERATED_ID, KEYED
from pipelines.contract.wire import BY_NAME
from pipelines.warehouse import database, ducklake, load, schemas

BUILT_ANEW = (*schemas.BUILT, *schemas.OUTDATED)
WIRE = [*BY_NAME, *BOOKS]
"""Tables of the wire that this release makes. Another one, of another release, is left behind: the new warehouse has no
place for it, and what cannot be copied would stop every erasure."""
LEDGER = ["closed_lines", "read_seals", "restatements"]
"""Tables of `billing` that are read again from their files once these are redacted. Copied and dropped, their rows
would stay in blocks of the file that nothing has overwritten, and the search would find them."""
PROGRAMS = ["contract_hash", "gate_hash", "uploader_version"]  # of programs, not of people
IDENTIFIER = rf"{GENERATED_ID}|{KEYED}|[0-9a-f]{{12,64}}|landing/.*"


@contextmanager
def beside(fresh: Path, old: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """The new warehouse, with the old one beside it under the name `old`."""
    with duckdb.connect(str(fresh)) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        if database.is_ducklake():
            ducklake.attach(connection, name="old")
        else:
            connection.execute(f"ATTACH '{ducklake.quoted(str(old))}' AS old (READ_ONLY)")
        yield connection
        connection.execute("DETACH old")
        connection.execute("CHECKPOINT")


def copy_tables(connection: duckdb.DuckDBPyConnection, tenants: list[str], gone: list[str]) -> None:
    """Copy every table that is neither built nor read from files anew: of these tenants only the rows of batches that
    cannot be loaded again."""
    tables = connection.execute(
        "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = 'old'"
        " AND NOT list_contains(?, schema_name) AND (schema_name <> 'wire' OR list_contains(?, table_name))"
        " AND NOT (schema_name = 'billing' AND list_contains(?, table_name)) ORDER BY ALL",
        [list(BUILT_ANEW), WIRE, LEDGER],
    ).fetchall()
    for schema, table in tables:
        if schema != "wire":
            connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
            connection.execute(f'CREATE TABLE "{schema}"."{table}" AS FROM old."{schema}"."{table}"')
            continue
        columns = {name for (name, *_) in connection.execute(f"DESCRIBE old.wire.{table}").fetchall()}
        batch = next((name for name in ("_manifest_key", "manifest_key") if name in columns), None)
        copied, values = "NOT list_contains($tenants, tenant_id)", {"tenants": tenants}
        if table == "kept_charges":
            continue
        if batch is not None:
            copied = f"{copied} OR {batch} IN (SELECT unnest($gone))"
            values = {"tenants": tenants, "gone": gone}
        connection.execute(f"INSERT INTO wire.{table} BY NAME SELECT * FROM old.wire.{table} WHERE {copied}", values)
    sessions = " UNION ".join(
        f"SELECT tenant_id, {column} FROM wire.{name} WHERE list_contains($tenants, tenant_id) AND {column} IS NOT NULL"
        for name, table in BY_NAME.items()
        for column in load.SESSION_COLUMNS
        if column in table.by_name
    )
    connection.execute(
        "INSERT INTO wire.touched_sessions BY NAME SELECT * FROM old.wire.touched_sessions"
        f" WHERE (tenant_id, session_id) IN ({sessions})",
        {"tenants": tenants},
    )


def copy_decisions(connection: duckdb.DuckDBPyConnection, tenants: list[str]) -> None:
    """Of what people decided of these tenants' records, what concerns a record that is still there."""
    connection.execute(
        """
        INSERT INTO wire.released BY NAME SELECT * FROM old.wire.released
        WHERE list_contains(?, tenant_id) AND (tenant_id, record_id) IN (
            SELECT (tenant_id, record_id) FROM wire.llm_turns
            UNION ALL SELECT (tenant_id, record_id) FROM wire.node_steps
        )
        """,
        [tenants],
    )


def identifiers_gone(
    connection: duckdb.DuckDBPyConnection, tenants: list[str], to_erase: Mapping[str, str]
) -> dict[str, set[str]]:
    """Identifiers that the old wire holds and the new one does not: none may be found any more. By the request that
    takes their batches away (`to_erase`: requests by manifest); what stands in no batch is everybody's. Those that the
    site gave its own actions are nobody's: they come back from their book with the next load."""
    columns = connection.execute(
        "SELECT table_name, column_name FROM duckdb_columns() WHERE database_name = 'old' AND schema_name = 'wire'"
        " AND data_type = 'VARCHAR' AND NOT list_contains(?, column_name)"
        " AND table_name NOT IN ('kept_charges', 'operator_actions') AND list_contains(?, table_name)",
        [PROGRAMS, WIRE],
    ).fetchall()
    keys = {table: column for table, column in columns if column in ("_manifest_key", "manifest_key")}
    old = " UNION ".join(
        f"SELECT {column} AS v, {keys.get(table, 'NULL')} AS k FROM old.wire.{table}"
        " WHERE list_contains($tenants, tenant_id)"
        for table, column in columns
    )
    connection.execute("CREATE OR REPLACE TEMP TABLE to_erase (k VARCHAR, request_id VARCHAR)")
    connection.execute("INSERT INTO to_erase SELECT unnest(?), unnest(?)", [[*to_erase], [*to_erase.values()]])
    found = connection.execute(
        f"SELECT DISTINCT v, request_id FROM ({old}) LEFT JOIN to_erase USING (k)"
        f" WHERE regexp_full_match(v, $form) AND v NOT IN (SELECT v FROM ({_values(connection)}) WHERE v IS NOT NULL)",
        {"tenants": tenants, "form": IDENTIFIER},
    ).fetchall()
    named = {value for value, request_id in found if request_id is not None}
    gone: dict[str, set[str]] = {}
    for value, request_id in found:
        if request_id is not None:
            gone.setdefault(request_id, set()).add(value)
        elif value not in named:
            for name in set(to_erase.values()):
                gone.setdefault(name, set()).add(value)
    return gone


def still_there(
    connection: duckdb.DuckDBPyConnection, words: Collection[str], schemas: Sequence[str] = ("wire",)
) -> set[str]:
    """Those of some words that tables of these schemas hold as values."""
    found = connection.execute(
        f"SELECT v FROM (SELECT unnest(?) AS v) WHERE v IN (SELECT v FROM ({_values(connection, schemas)}))",
        [sorted(words)],
    ).fetchall()
    return {value for (value,) in found}


def _values(connection: duckdb.DuckDBPyConnection, schemas: Sequence[str] = ("wire",)) -> str:
    """A query for all texts of some schemas."""
    columns = connection.execute(
        "SELECT schema_name, table_name, column_name FROM duckdb_columns() WHERE database_name = current_database()"
        " AND list_contains(?, schema_name) AND data_type = 'VARCHAR' AND NOT list_contains(?, column_name)",
        [list(schemas), PROGRAMS],
    ).fetchall()
    return " UNION ".join(f"SELECT {column} AS v FROM {schema}.{table}" for schema, table, column in columns)


def has(connection: duckdb.DuckDBPyConnection, schema: str, table: str, *, database: str = "old") -> bool:
    """Whether a warehouse has a table."""
    return bool(
        connection.execute(
            "SELECT 1 FROM duckdb_tables() WHERE database_name = ? AND schema_name = ? AND table_name = ?",
            [database, schema, table],
        ).fetchall()
    )


def drop_built(file: Path) -> None:
    """Drop what models built: the next run makes all of it anew, since nothing tells it which days have changed."""
    with duckdb.connect(str(file)) as connection:
        for schema in BUILT_ANEW:
            connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
        connection.execute("CHECKPOINT")


def settle(file: Path) -> None:
    """Make a database private, and safe from a loss of power before it takes another one's place."""
    file.chmod(0o600)
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
