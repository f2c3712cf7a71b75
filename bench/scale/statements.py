"""The statements that are made from an engine's marts, and what of their files differs.

Does not belong here: marts themselves (compare.py), how a statement is made (pipelines/billing/exports.py).
"""

import json
from collections.abc import Collection, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

from pipelines.billing import closing, exports, gate, ledger, periods
from pipelines.billing.statements import StatementStore
from pipelines.home import Home
from pipelines.quality import gates
from pipelines.warehouse import database

# When a statement was written, the hashes of manifests, which say so, and whose key signed them.
OF_THE_RUN = {
    "as_of", "content_sha256", "previous_manifest_sha256", "manifest_sha256", "chain_sha256", "signature", "public_key",
}  # fmt: skip


def make(warehouse: Path, home: Home, folder: Path, *, months: Collection[str], as_of: datetime) -> dict[str, Any]:
    """All statements of a warehouse, of days and of months, into a new folder; their files. Raises GateError."""
    with database.connect(warehouse) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        suites = gates.suites("billing")
        checks = [check for suite in suites for check in gate.judged(suite.name, gates.run(suite, connection))]
        export = exports.ExportContext(
            connection=connection, statements=StatementStore.open(folder),
            book=periods.read(ledger.book_path(home.books)), as_of=as_of, checks=checks, issuer=exports.issuer(),
        )  # fmt: skip
        exports.export_days(export)
        for month in map(periods.month_of, months):
            exports.export_months(export, month, closing.accounts_of(connection, export.book, month))
    return dict(files(folder))


def on_marts(warehouse: Path, marts: Path) -> None:
    """Let a copy of a warehouse have the marts that another engine wrote, in the place of its own."""
    with duckdb.connect(str(warehouse)) as connection:
        connection.execute("DROP SCHEMA marts CASCADE")
        connection.execute("CREATE SCHEMA marts")
        for mart in sorted(path for path in marts.iterdir() if path.is_dir()):
            connection.execute(f"CREATE VIEW marts.{mart.name} AS FROM read_parquet('{mart}/*.parquet')")


def files(folder: Path) -> Iterator[tuple[str, Any]]:
    """Name and content of every file: rows of Parquet, bytes of CSV, and JSON without what is of the run."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".parquet":
            yield name, pq.read_table(path)
        elif path.suffix == ".json":
            yield name, without_run(json.loads(path.read_bytes()))
        elif path.suffix == ".csv":
            yield name, path.read_bytes()


def without_run(value: object) -> object:
    """A manifest without what two runs of the same statement say differently."""
    if isinstance(value, dict):
        return {name: without_run(item) for name, item in value.items() if name not in OF_THE_RUN}
    return [without_run(item) for item in value] if isinstance(value, list) else value


def differing(mine: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Names of files that are in one alone, or not the same."""
    return sorted(name for name in mine.keys() | other.keys() if mine.get(name) != other.get(name))
