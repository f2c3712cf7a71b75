"""Whose rows make the models fail: batches are tried apart from each other, on a copy, until the least are found.

A batch keeps to its contract and still a model fails on it, or a test: nobody else is to wait for it. Does not belong
here: building and testing (the caller's `fails`), taking batches out (exclusion.py).
"""

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import duckdb

from pipelines.contract.ddl import BOOKS
from pipelines.contract.wire import BY_NAME
from pipelines.home import private_folder
from pipelines.warehouse import database, load, renewal

Fails = Callable[[Path], bool]
"""Whether what failed fails in a warehouse file, which holds the rows of some batches and no model yet."""

MOST_TRIES = 24
Group = tuple[str, ...]


@dataclass(frozen=True)
class _Batch:
    key: str
    tenant: str
    device: str


class _NoTriesLeftError(Exception):
    """The least is not known; what is known to fail is taken as a whole."""


@dataclass
class _Trial:
    """Tries batches, each set of them once."""

    warehouse: Path
    fails: Fails
    tries: int
    known: dict[frozenset[str], bool] = field(default_factory=dict)

    def __call__(self, groups: Iterable[Group]) -> bool:
        keys = frozenset(key for group in groups for key in group)
        if keys not in self.known:
            if len(self.known) >= self.tries:
                raise _NoTriesLeftError
            self.known[keys] = self.fails(self._copy(keys))
        return self.known[keys]

    def _copy(self, keys: frozenset[str]) -> Path:
        """A warehouse of these batches alone, with the books that people write and nothing that is built."""
        file = private_folder(self.warehouse.parent / "trial") / self.warehouse.name  # the models name it by its file
        for left in (file, file.with_name(f"{file.name}.wal")):
            left.unlink(missing_ok=True)
        with renewal.beside(file, self.warehouse) as connection:
            load.prepare(connection)
            connection.execute("CREATE TEMP TABLE tried AS SELECT unnest(?::VARCHAR[]) AS manifest_key", [sorted(keys)])
            for table in (*BY_NAME, *BOOKS):  # `batches` first among the books: others go by its tenants
                _copy_rows(connection, table)
            _copy_schemas(connection)
            connection.execute("DROP TABLE tried")
        return file


def culprits(warehouse: Path, fails: Fails, *, tries: int = MOST_TRIES) -> list[str]:
    """The keys of the loaded batches without which it does not fail; none if it fails without any batch too.

    First the tenant, then its device, then the batch. After `tries` tries the whole of what is known to fail is named.
    """
    trial = _Trial(warehouse, fails, tries)
    batches = _loaded(warehouse)
    try:
        if not batches or trial([]) or not trial([tuple(batch.key for batch in batches)]):
            return []
        found: list[str] = []
        for tenant in _narrowed(_grouped(batches, lambda batch: batch.tenant), trial):
            of_tenant = [batch for batch in batches if batch.key in tenant]
            found += _within(of_tenant, trial)
    finally:
        shutil.rmtree(warehouse.parent / "trial", ignore_errors=True)
    return found


def _within(batches: list[_Batch], trial: _Trial) -> list[str]:
    """The least of one tenant's batches."""
    found: list[str] = []
    for device in _narrowed(_grouped(batches, lambda batch: batch.device), trial):
        for batch in _narrowed([(key,) for key in device], trial):
            found += batch
    return found


def _narrowed(groups: list[Group], trial: _Trial) -> list[Group]:
    """The least groups that fail, of groups that fail together; all of them if there are no tries left."""
    try:
        return _halved(groups, trial)
    except _NoTriesLeftError:
        return groups


def _halved(groups: list[Group], trial: _Trial) -> list[Group]:
    if len(groups) == 1:
        return groups
    first, last = groups[: len(groups) // 2], groups[len(groups) // 2 :]
    guilty = [group for half in (last, first) if trial(half) for group in _narrowed(half, trial)]
    if guilty:
        return guilty
    # They fail only together: those that came last are to go.
    while len(last) > 1:
        halves = (last[len(last) // 2 :], last[: len(last) // 2])
        smaller = next((half for half in halves if trial([*first, *half])), None)
        if smaller is None:
            break
        last = smaller
    return last


def _grouped(batches: list[_Batch], by: Callable[[_Batch], str]) -> list[Group]:
    """Batches by whom they are of, in the order of arrival of the last one of each."""
    place = {batch.key: number for number, batch in enumerate(batches)}
    groups = [tuple(b.key for b in found) for _, found in groupby(sorted(batches, key=by), key=by)]
    return sorted(groups, key=lambda group: max(place[key] for key in group))


def _loaded(warehouse: Path) -> list[_Batch]:
    with database.connect(warehouse, read_only=True) as connection:
        rows = connection.execute(
            "SELECT manifest_key, tenant_id, device_id FROM wire.batches WHERE status = 'loaded'"
            " ORDER BY received_at, manifest_key"
        ).fetchall()
    return [_Batch(*row) for row in rows]


def _copy_rows(connection: duckdb.DuckDBPyConnection, table: str) -> None:
    columns = {name for (name, *_) in connection.execute(f"DESCRIBE old.wire.{table}").fetchall()}
    batch = next((name for name in ("_manifest_key", "manifest_key") if name in columns), None)
    chosen = (
        f"{batch} IN (SELECT manifest_key FROM tried)"
        if batch
        else "tenant_id IN (SELECT tenant_id FROM wire.batches)"
        if table != "batches" and "tenant_id" in columns
        else "true"
    )
    connection.execute(f"INSERT INTO wire.{table} BY NAME SELECT * FROM old.wire.{table} WHERE {chosen}")


def _copy_schemas(connection: duckdb.DuckDBPyConnection) -> None:
    """Tables that neither the loader nor dbt makes."""
    tables = connection.execute(
        "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = 'old'"
        " AND NOT list_contains(?, schema_name)",
        [["wire", "seeds", *renewal.BUILT_ANEW]],
    ).fetchall()
    for schema, table in tables:
        connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
        connection.execute(f'CREATE TABLE "{schema}"."{table}" AS FROM old."{schema}"."{table}"')
