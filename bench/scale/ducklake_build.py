"""Load and models on DuckLake, as a process of its own: `python -m bench.scale.ducklake_build OUTPUTS STORE BOOKS ...`.

It loads what lies in STORE with the gate, the ledger and the load of the pipeline, reads the books of the folder BOOKS,
builds the models and their tests, and writes each mart as Parquet into OUTPUTS. Of several INPUTS (inputs.py) each
names the batches that had arrived by then: models are built on the first, and brought up to date with each other.
Does not belong here: comparing (compare.py), starting PostgreSQL (postgres.py).
"""

import argparse
import json
import os
import time
from pathlib import Path

import duckdb

from bench.scale.dbt_models import Nodes, build, dbt, is_built
from pipelines.billing import books, ledger
from pipelines.engine import SETTING, Engine
from pipelines.store import open_store
from pipelines.warehouse import ducklake, landing, raised_alerts
from pipelines.warehouse.load import known_manifests, load, prepare

RUN_METADATA = ("billing.restatements", "operation.alerts")


def load_arrived(store_url: str, folder: Path, inputs: Path | None) -> None:
    """What had arrived, into the wire; and the books."""
    store = open_store(store_url)
    with ducklake.connect() as lake:
        prepare(lake)
        waiting = landing.pending(store, known_manifests(lake))
        if inputs is not None:
            ledger_of = str(inputs / "wire" / "batches" / "*.parquet")
            rows = duckdb.execute("SELECT manifest_key FROM read_parquet(?)", [ledger_of]).fetchall()
            waiting = [arrival for arrival in waiting if (arrival.key,) in set(rows)]
        load(lake, store, waiting)
        raised_alerts.prepare(lake)
        books.load(lake, [books.SHIPPED, folder])
        ledger.load(lake, folder)


def copy_run_metadata(tables: Path) -> None:
    """What models read of runs themselves: the warehouse's, as it holds the times at which its own runs took place."""
    with ducklake.connect() as lake:
        for table in RUN_METADATA:
            rows = tables / table.replace(".", "/") / "*.parquet"
            lake.execute(f"CREATE OR REPLACE TABLE {table} AS FROM read_parquet('{rows}')")


def write_marts(outputs: Path) -> None:
    """Each mart as Parquet."""
    with ducklake.connect() as lake:
        found = lake.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_catalog = ? AND table_schema = 'marts'",
            [ducklake.NAME],
        ).fetchall()
        for (mart,) in found:
            (outputs / mart).mkdir(parents=True, exist_ok=True)
            lake.execute(f"COPY marts.{mart} TO '{outputs / mart / 'rows.parquet'}' (FORMAT parquet)")


def main() -> int:
    """Load, build, write the marts and `results.json`; 1 if a model or test failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("outputs", type=Path)
    parser.add_argument("store")
    parser.add_argument("books", type=Path)
    parser.add_argument("inputs", type=Path, nargs="*")
    parser.add_argument("--select", nargs="*", default=[])
    parser.add_argument("--history", type=Path, help="tables of the warehouse that the lake goes on from (history.py)")
    options = parser.parse_args()
    os.environ[SETTING] = Engine.DUCKLAKE
    folder = options.outputs.parent / "dbt"
    seconds = {"load": 0.0, "build": 0.0, "write": 0.0}
    results: Nodes = {}
    last = options.inputs[-1] if options.inputs else None
    for inputs in options.inputs or [None]:
        begun = time.monotonic()
        load_arrived(options.store, options.books, inputs)
        if options.history is not None:
            copy_run_metadata(options.history)
        loaded = time.monotonic()
        dbt(Engine.DUCKLAKE, "seed", folder, "--full-refresh")
        results = build(Engine.DUCKLAKE, folder, options.select, tests=inputs == last)
        seconds["load"] += loaded - begun
        seconds["build"] += time.monotonic() - loaded
        if not is_built(results):
            break
    written = time.monotonic()
    write_marts(options.outputs)
    seconds["write"] = time.monotonic() - written
    (options.outputs / "results.json").write_text(json.dumps({"seconds": seconds, "nodes": results}), "utf-8")
    return int(not is_built(results))


if __name__ == "__main__":
    raise SystemExit(main())
