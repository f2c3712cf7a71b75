"""Whose rows make the models fail: batches are tried apart from each other, on a copy, until the least are found.

A batch keeps to its contract and still a model fails on it, or a test: nobody else is to wait for it. Does not belong
here: building and testing (the caller's `fails`), taking batches out (exclusion.py).
"""

import shutil
from collections.abc import Callable, Iterable, Iterator
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

MOST_TRIES = 24  # within one tenant
MOST_TRIES_IN_ALL = 240
Group = tuple[str, ...]


@dataclass(frozen=True)
class _Batch:
    key: str
    tenant: str
    device: str


class _NoTriesLeftError(Exception):
    """The least is not known."""


@dataclass
class _Trial:
    """Tries batches, each set of them once, as long as there are less than `most`."""

    warehouse: Path
    fails: Fails
    most: int = MOST_TRIES_IN_ALL
    known: dict[frozenset[str], bool] = field(default_factory=dict)

    def __call__(self, groups: Iterable[Group]) -> bool:
        keys = frozenset(key for group in groups for key in group)
        if keys not in self.known:
            if len(self.known) >= self.most:
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
    """The keys of loaded batches without which it fails less, or not at all; none if it fails without any batch too.

    First the tenant, then its device, then the batch. A tenant that fails is narrowed within `tries`, and taken as a
    whole where they do not suffice: more of the same tenant, never of another one. Tenants that were not found within
    the tries are left for the build that follows.
    """
    trial = _Trial(warehouse, fails)
    batches = _loaded(warehouse)
    found: list[str] = []
    try:
        if not batches or trial([]) or not trial([tuple(batch.key for batch in batches)]):
            return []
        for tenant in _failing(_grouped(batches, lambda batch: batch.tenant), trial):
            trial.most = min(len(trial.known) + tries, MOST_TRIES_IN_ALL)
            found += _within([batch for batch in batches if batch.key in tenant], trial)
            trial.most = MOST_TRIES_IN_ALL
    except _NoTriesLeftError:
        pass
    finally:
        shutil.rmtree(warehouse.parent / "trial", ignore_errors=True)
    return found


def _within(batches: list[_Batch], trial: _Trial) -> list[str]:
    """The least of one tenant's batches; all of a device or of the tenant if there are no tries left."""
    found: list[str] = []
    for device in _least(_grouped(batches, lambda batch: batch.device), trial):
        for batch in _least([(key,) for key in device], trial):
            found += batch
    return found


def _least(groups: list[Group], trial: _Trial) -> list[Group]:
    try:
        return list(_failing(groups, trial))
    except _NoTriesLeftError:
        return groups


def _failing(groups: list[Group], trial: _Trial) -> Iterator[Group]:
    """The least groups that fail, of groups that fail together, the last one first. Raises _NoTriesLeftError."""
    if len(groups) == 1:
        yield groups[0]
        return
    first, last = groups[: len(groups) // 2], groups[len(groups) // 2 :]
    fail_alone = False
    for half in (last, first):
        if trial(half):
            fail_alone = True
            yield from _failing(half, trial)
    if fail_alone:
        return
    # They fail only together: those that came last are to go.
    while len(last) > 1:
        halves = (last[len(last) // 2 :], last[: len(last) // 2])
        smaller = next((half for half in halves if trial([*first, *half])), None)
        if smaller is None:
            break
        last = smaller
    yield from last


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
