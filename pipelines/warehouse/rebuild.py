"""A second warehouse from the landing alone, compared with the first row by row, then put in its place.

The landing is the truth; this proves it. The file before stays beside the new one until somebody removes it.
Does not belong here: loading (load.py), what the marts are (models/).
"""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from pipelines.contract.ddl import DECISIONS
from pipelines.contract.wire import TABLES
from pipelines.errors import ExpectedError
from pipelines.home import ROOT, private_folder
from pipelines.store import Store
from pipelines.warehouse import kept, landing, load, raised_alerts, schemas
from pipelines.warehouse.landing import AdmissionPolicy
from pipelines.warehouse.load import Loaded, Progress


class RebuildError(ExpectedError):
    """The second warehouse could not be built; the first one is as it was."""


@dataclass(frozen=True)
class Difference:
    """A table that is not the same; rows and the hash over all of them, whatever their order."""

    table: str
    before: tuple[int, int] | None
    after: tuple[int, int] | None


@dataclass
class Rebuilt:
    """A second warehouse that waits to be put in place."""

    aside: Path
    loaded: Loaded
    compared: int = 0
    differences: list[Difference] = field(default_factory=list)


def rebuild(
    warehouse: Path,
    store: Store,
    *,
    admission: AdmissionPolicy,
    progress: Progress | None = None,
    with_marts: bool = True,
) -> Rebuilt:
    """Load everything in the landing into a fresh file beside the warehouse, build the marts, and compare.

    Raises RebuildError, StoreUnavailableError, StoreRefusedError.
    """
    # The models name the database by its file: under another name the views would lead nowhere once it is in place.
    aside = private_folder(warehouse.parent / "rebuilt") / warehouse.name
    for left in (aside, aside.with_name(f"{aside.name}.wal")):
        left.unlink(missing_ok=True)
    loaded = make_anew(aside, warehouse, store, admission=admission, progress=progress, with_marts=with_marts)
    rebuilt = Rebuilt(aside, loaded)
    if warehouse.exists():
        with duckdb.connect(str(aside)) as connection:
            connection.execute(f"ATTACH '{quoted(warehouse)}' AS before (READ_ONLY)")
            before, after = (fingerprints(connection, database) for database in ("before", aside.stem))
        rebuilt.compared = len(before.keys() | after.keys())
        rebuilt.differences = [
            Difference(name, before.get(name), after.get(name))
            for name in sorted(before.keys() | after.keys())
            if before.get(name) != after.get(name)
        ]
    return rebuilt


def make_anew(
    aside: Path,
    warehouse: Path,
    store: Store,
    *,
    admission: AdmissionPolicy,
    with_marts: bool,
    progress: Progress | None = None,
) -> Loaded:
    """Load everything in the landing, with what people decided in the warehouse, into a fresh file; build the marts.

    Raises RebuildError, StoreUnavailableError, StoreRefusedError.
    """
    with duckdb.connect(str(aside)) as connection:
        load.prepare(connection)
        if warehouse.exists():
            _carry_over(connection, warehouse)
        raised_alerts.prepare(connection)  # a warehouse of an earlier release has none
        kept.restore(connection, store)
        loaded = load.load(connection, store, landing.pending(store, ()), admission=admission, progress=progress)
    if with_marts:
        _build(aside)
    return loaded


def put_in_place(rebuilt: Rebuilt, warehouse: Path) -> Path | None:
    """Let the second warehouse take the first one's name in one step; where the first one lies now."""
    before = None
    if warehouse.exists():
        before = warehouse.with_name(f"{warehouse.stem}.before-{datetime.now(UTC):%Y%m%dT%H%M%S%f}.duckdb")
        os.link(warehouse, before)
    os.replace(rebuilt.aside, warehouse)  # noqa: PTH105 - never a moment without a warehouse
    return before


def fingerprints(connection: duckdb.DuckDBPyConnection, database: str) -> dict[str, tuple[int, int]]:
    """Rows of every table of the wire and of every mart, and a hash over them that knows no order.

    Columns that begin with `_` say how a row came and not what it holds.
    """
    columns = connection.execute(
        "SELECT schema_name, table_name, column_name FROM duckdb_columns() WHERE database_name = ?"
        " AND schema_name IN ('wire', 'marts') AND NOT starts_with(column_name, '_') ORDER BY ALL",
        [database],
    ).fetchall()
    listed: dict[str, list[str]] = {}
    wire = {table.name for table in TABLES}
    for schema, table, column in columns:
        if schema == "marts" or table in wire:
            listed.setdefault(f"{schema}.{table}", []).append(f'"{column}"')
    found = {}
    for table, names in listed.items():
        row = connection.execute(
            f"SELECT count(*), coalesce(sum(hash({', '.join(names)})::HUGEINT), 0) FROM {database}.{table}"
        ).fetchone()
        assert row is not None  # noqa: S101 - an aggregate has a row
        found[table] = (int(row[0]), int(row[1]))
    return found


def _carry_over(connection: duckdb.DuckDBPyConnection, warehouse: Path) -> None:
    """What people decided is in no batch: those books, and schemas that neither the loader nor dbt made."""
    connection.execute(f"ATTACH '{quoted(warehouse)}' AS before (READ_ONLY)")
    tables = connection.execute(
        "SELECT schema_name, table_name, sql FROM duckdb_tables() WHERE database_name = 'before' AND NOT internal"
    ).fetchall()
    for schema, table, statement in tables:
        if schema == "wire" and table in DECISIONS:
            connection.execute(f"INSERT INTO wire.{table} BY NAME SELECT * FROM before.wire.{table}")
        elif schema not in ("wire", "main", "seeds", *schemas.BUILT, *schemas.OUTDATED):
            connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
            connection.execute(statement)  # with its keys and constraints
            connection.execute(f'INSERT INTO "{schema}"."{table}" SELECT * FROM before."{schema}"."{table}"')
    connection.execute("DETACH before")


def _build(warehouse: Path) -> None:
    project = ROOT / "dbt_project"
    scratch = str(warehouse.parent / "target")
    folders = {"project-dir": project, "profiles-dir": project, "target-path": scratch, "log-path": scratch}
    command = [
        str(Path(sys.executable).with_name("dbt")), "--quiet", "--no-version-check", "build", "--target", "duckdb",
        "--exclude-resource-type", "test", "--exclude-resource-type", "unit_test",
        *(f"--{name}={folder}" for name, folder in folders.items()),
    ]  # fmt: skip
    found = subprocess.run(
        command, env=os.environ | {"APIARY_WAREHOUSE": str(warehouse)}, capture_output=True, text=True, check=False
    )
    if found.returncode:
        last = next(iter(reversed(found.stdout.strip().splitlines())), "no output")
        raise RebuildError(f"dbt could not build the marts of the second warehouse: {last}")


def quoted(path: Path) -> str:
    """A file's name within a statement that attaches it, which binds no values."""
    return str(path).replace("'", "''")
