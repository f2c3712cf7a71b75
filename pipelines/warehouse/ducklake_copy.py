"""Moves a warehouse from a DuckDB file into the DuckLake of the settings, and back.

`python -m pipelines.warehouse.ducklake_copy into-lake FILE`, or `into-file FILE`. What no landing brings back goes too:
the ledger, what people decided, the books. Marts do not: they are built where they are needed.
Does not belong here: building them (dbt), loading (load.py).
"""

import argparse
import sys
from pathlib import Path

import duckdb

from pipelines.contract.numbers import pluralize
from pipelines.errors import ExpectedError
from pipelines.warehouse import ducklake, load

SCHEMAS = ("wire", "billing", "operation")
FILE = "file"


class CopyError(ExpectedError):
    """There is nothing to copy, or something where it would go."""


def into_lake(path: Path) -> dict[str, int]:
    """Copy a file's tables into the DuckLake; rows by table. Raises CopyError, DuckLakeError, duckdb.Error."""
    if not path.exists():
        raise CopyError(f"{path} is not there: name the file of a warehouse")
    with ducklake.connect() as connection:
        connection.execute(f"ATTACH '{ducklake.quoted(str(path))}' AS {FILE} (READ_ONLY)")
        return _copy(connection, FILE, ducklake.NAME)


def into_file(path: Path) -> dict[str, int]:
    """Copy the DuckLake's tables into a new file; rows by table. Raises CopyError, DuckLakeError, duckdb.Error."""
    if path.exists():
        raise CopyError(f"{path} is there already: name a new file")
    with ducklake.connect() as connection:
        connection.execute(f"ATTACH '{ducklake.quoted(str(path))}' AS {FILE}")
        return _copy(connection, ducklake.NAME, FILE)


def _copy(connection: duckdb.DuckDBPyConnection, source: str, target: str) -> dict[str, int]:
    """All or nothing. A copy that is not as long as what it was made of is an error."""
    connection.execute(f"USE {target}")
    load.prepare(connection)
    if load.known_manifests(connection):
        raise CopyError("there are batches where the copy would go: it goes into an empty warehouse alone")
    tables = connection.execute(
        "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = ? AND schema_name IN ?"
        " AND table_name <> 'load_sequence' ORDER BY ALL",
        [source, list(SCHEMAS)],
    ).fetchall()

    def work() -> dict[str, int]:
        rows = {}
        for schema, table in tables:
            name, other = f"{schema}.{table}", f"{source}.{schema}.{table}"
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
            connection.execute(f"CREATE TABLE IF NOT EXISTS {name} AS FROM {other} LIMIT 0")
            connection.execute(f"INSERT INTO {name} BY NAME FROM {other}")
            (copied, there) = connection.execute(
                f"SELECT (SELECT count(*) FROM {name}), (SELECT count(*) FROM {other})"
            ).fetchone() or (0, 0)
            if copied != there:
                raise CopyError(f"{name} has other rows in the copy: {copied} instead of {there}")
            rows[name] = int(copied)
        return rows

    return ducklake.until_committed(connection, work)


def main() -> int:
    """Copy, and say what; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("direction", choices=("into-lake", "into-file"))
    parser.add_argument("file", type=Path)
    options = parser.parse_args()
    try:
        rows = (into_lake if options.direction == "into-lake" else into_file)(options.file)
    except ExpectedError as error:
        sys.stderr.write(f"apiary: {error}\n")
        return error.exit_code
    sys.stderr.write(f"copied {pluralize(sum(rows.values()), 'row')} of {pluralize(len(rows), 'table')}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
