"""What another version of Apiary would make of the batches that were loaded already, before it is switched on.

The other version is a checkout. Its own code loads the landing into a throw-away warehouse, in a process of its own;
this version compares the two, and writes nothing into the real one.
Does not belong here: loading (load.py), making this version's warehouse anew (rebuild.py).
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb

from pipelines.contract.ddl import BOOKS
from pipelines.errors import ExpectedError, UsageError
from pipelines.home import private_folder
from pipelines.store import open_store
from pipelines.warehouse import landing, load, quarantine, rebuild, registry

ENTRY = "pipelines.warehouse.shadow"
SIDES = ("here", "there")
TOKENS = ("input_tokens", "output_tokens")


class ShadowError(ExpectedError):
    """The other version could not load the landing; the warehouse is as it was."""


@dataclass(frozen=True)
class Difference:
    """One table as this version has it and as the other one makes it; None where there is no such table or column.

    `changed`: records that both have, with other values in the columns that both have; of a mart, whose rows have no
    identity, a changed row is one only here and one only there. `columns`: those gained (+) and lost (-).
    """

    table: str
    rows_here: int | None
    rows_there: int | None
    only_here: int | None = None
    only_there: int | None = None
    changed: int | None = None
    input_tokens_here: int | None = None
    input_tokens_there: int | None = None
    output_tokens_here: int | None = None
    output_tokens_there: int | None = None
    columns: str = ""

    @property
    def is_none(self) -> bool:
        """Whether the two are the same."""
        return self.rows_here == self.rows_there and not (
            self.only_here or self.only_there or self.changed or self.columns
        )


@dataclass(frozen=True)
class Refused:
    """How many batches are in quarantine for a reason."""

    reason: str
    here: int
    there: int


@dataclass(frozen=True)
class Shadow:
    """Every table, and every reason. `waiting`: batches that this version has not loaded yet, and the other one has."""

    tables: tuple[Difference, ...]
    refused: tuple[Refused, ...]
    waiting: int

    @property
    def is_equal(self) -> bool:
        """Whether it makes no difference."""
        return all(table.is_none for table in self.tables) and all(one.here == one.there for one in self.refused)


def shadow(warehouse: Path, store_url: str, checkout: Path, *, with_marts: bool = False) -> Shadow:
    """Have another checkout load the landing, and with `with_marts` build its models, and compare.

    Raises UsageError, ShadowError, StoreUnavailableError, StoreRefusedError.
    """
    if not (checkout / (ENTRY.replace(".", "/") + ".py")).is_file():
        raise UsageError(f"{checkout} is no checkout of Apiary that can be tried out: it has no module {ENTRY}")
    folder = warehouse.parent / "shadow"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        # The models name the database by its file.
        other = private_folder(folder) / warehouse.name
        _load_with(checkout, warehouse, store_url, other, with_marts=with_marts)
        with duckdb.connect() as connection:
            for side, path in zip(SIDES, (warehouse, other), strict=True):
                connection.execute(f"ATTACH '{rebuild.quoted(path)}' AS {side} (READ_ONLY)")
            connection.execute("USE here")
            known = load.known_manifests(connection)
            found = landing.pending(open_store(store_url), known)
            waiting = sum(load.pseudonymised(arrival.key) not in known for arrival in found)
            schemas = ("wire", "marts") if with_marts else ("wire",)
            return Shadow(tuple(_tables(connection, schemas)), tuple(_refused(connection)), waiting)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _load_with(checkout: Path, warehouse: Path, store_url: str, other: Path, *, with_marts: bool) -> None:
    command = [sys.executable, "-P", "-m", ENTRY, str(warehouse), store_url, str(other)]
    command += ["--marts"] if with_marts else []
    environment = os.environ | {"PYTHONPATH": str(checkout.absolute())}
    done = subprocess.run(command, env=environment, cwd=other.parent, capture_output=True, text=True, check=False)
    if done.returncode:
        last = next(iter(reversed(done.stderr.strip().splitlines())), "no word")
        raise ShadowError(f"the version in {checkout} could not load the landing: {last}")


def _tables(connection: duckdb.DuckDBPyConnection, schemas: tuple[str, ...]) -> Iterator[Difference]:
    columns: dict[tuple[str, str], dict[str, list[str]]] = {}
    for side, schema, table, column in connection.execute(
        "SELECT database_name, schema_name, table_name, column_name FROM duckdb_columns()"
        " WHERE database_name IN ('here', 'there') AND NOT starts_with(column_name, '_') ORDER BY ALL"
    ).fetchall():
        if schema in schemas and not (schema == "wire" and table in BOOKS):
            columns.setdefault((schema, table), {side: [] for side in SIDES})[side].append(column)
    for (schema, table), by_side in columns.items():
        yield _table(connection, f"{schema}.{table}", by_side)


def _table(connection: duckdb.DuckDBPyConnection, name: str, by_side: dict[str, list[str]]) -> Difference:
    totals: dict[str, int | None] = {"rows_here": None, "rows_there": None}
    for side, columns in by_side.items():
        for token in set(TOKENS).intersection(columns):
            totals[f"{token}_{side}"] = _one(connection, f"SELECT sum({token}) FROM {side}.{name}")
        if columns:
            totals[f"rows_{side}"] = _one(connection, f"SELECT count(*) FROM {side}.{name}")
    here, there = (by_side[side] for side in SIDES)
    moved = " ".join([f"+{c}" for c in there if c not in here] + [f"-{c}" for c in here if c not in there])
    both = ", ".join(f'"{column}"' for column in here if column in there)
    apart: tuple[int | None, ...] = (None, None, None)
    if both and name.startswith("wire."):
        apart = connection.execute(
            f"""
            SELECT count(*) FILTER (there._facts IS NULL), count(*) FILTER (here._facts IS NULL),
                count(*) FILTER (here._facts <> there._facts)
            FROM (SELECT tenant_id, record_id, hash({both}) AS _facts FROM here.{name}) AS here
            FULL JOIN (SELECT tenant_id, record_id, hash({both}) AS _facts FROM there.{name}) AS there
                USING (tenant_id, record_id)
            """
        ).fetchall()[0]
    elif both:
        rows_here, rows_there = (f"SELECT {both} FROM {side}.{name}" for side in SIDES)
        apart = (
            _one(connection, f"SELECT count(*) FROM ({rows_here} EXCEPT ALL {rows_there})"),
            _one(connection, f"SELECT count(*) FROM ({rows_there} EXCEPT ALL {rows_here})"),
            None,
        )
    return Difference(name, only_here=apart[0], only_there=apart[1], changed=apart[2], columns=moved, **totals)


def _refused(connection: duckdb.DuckDBPyConnection) -> Iterator[Refused]:
    connection.execute("USE here")
    here = quarantine.reasons(connection)
    connection.execute("USE there")
    there = quarantine.reasons(connection)
    for reason in sorted(here.keys() | there.keys()):
        yield Refused(reason, here.get(reason, 0), there.get(reason, 0))


def _one(connection: duckdb.DuckDBPyConnection, statement: str) -> int | None:
    found = connection.execute(statement).fetchall()[0][0]
    return None if found is None else int(found)


def main() -> None:
    """The other version's part: load everything that lies in the landing into a fresh file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("warehouse", type=Path)
    parser.add_argument("store")
    parser.add_argument("other", type=Path)
    parser.add_argument("--marts", action="store_true")
    options = parser.parse_args()
    store = open_store(options.store)
    admission = registry.admission_policy(options.warehouse.parent, store)
    rebuild.make_anew(options.other, options.warehouse, store, admission=admission, with_marts=options.marts)


if __name__ == "__main__":
    main()
