"""A build that fails on somebody's rows: whose they are is found, they are set aside, and everybody else's go on.

What fails without any batch too is a fault of the models or the books: the run fails with it. Does not belong here:
finding batches (warehouse/isolation.py), taking them out (warehouse/exclusion.py), the build itself (transform.py).
"""

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb as engine

from pipelines.contract.keys import parse_manifest_key
from pipelines.contract.numbers import pluralize
from pipelines.defs.dbt_project import PROJECT
from pipelines.defs.resources import HOME
from pipelines.engine import SETTING, Engine
from pipelines.quality import gates
from pipelines.store import Store
from pipelines.warehouse import budgets, database, exclusion, isolation, load, registry

Judged = Callable[[engine.DuckDBPyConnection], bool]
OVER_BUDGET = "row_budget"
MOST_ROUNDS = 3  # of building, finding out and building again in one run
REASONS = {"model": "failed_model", "test": "failed_test", "snapshot": "failed_model", "seed": "failed_model"}


@dataclass(frozen=True)
class Failure:
    """What failed: models and tests by the names that dbt selects, whether it fails once they are built (None: they
    themselves do), and the reason that the ledger gives."""

    nodes: tuple[str, ...]
    fails_after: Judged | None
    reason: str


def failure_of(run_results: dict[str, Any]) -> Failure | None:
    """What failed in a build of dbt; None if all that ran was good."""
    failed = [item["unique_id"].split(".") for item in run_results["results"] if item["status"] in ("error", "fail")]
    if not failed:
        return None
    # A model says more than the tests of others that were run beside it.
    failed.sort(key=lambda parts: parts[0] != "model")
    kind, _, name, *_ = failed[0]
    return Failure(tuple(parts[2] for parts in failed), None, f"{REASONS.get(kind, 'failed_model')}:{name}")


def failure_after(
    warehouse: Path, manifest: Mapping[str, Any], built: Collection[str], edge: gates.Edge
) -> Failure | None:
    """What is wrong with models (`schema.name`) that were built: more rows than their budgets, or a gate would stop."""
    budgets_of = {
        table: int(node["meta"]["max_rows_per_input_row"])
        for node in manifest["nodes"].values()
        if node["resource_type"] == "model" and (table := f"{node['schema']}.{node['name']}") in built
    }
    with database.connect(warehouse) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        if tables := budgets.exceeded(connection, budgets_of):
            over = {table: budgets_of[table] for table in tables}
            names = tuple(table.split(".")[-1] for table in tables)
            return Failure(names, lambda trial: bool(budgets.exceeded(trial, over)), f"{OVER_BUDGET}:{names[0]}")
        if stopped := [suite for suite in gates.suites(edge) if _stops(suite, connection)]:
            names = tuple(_reads(stopped))
            return Failure(
                names, lambda trial: any(_stops(suite, trial) for suite in stopped), f"failed_gate:{stopped[0].table}"
            )
    return None


def _stops(suite: gates.Suite, connection: engine.DuckDBPyConnection) -> bool:
    return any(result.is_critical and not result.passed for result in gates.run(suite, connection))


def _is_empty(connection: engine.DuckDBPyConnection) -> bool:
    """Of nothing a gate has nothing to say: a sum of no row is no number."""
    return connection.execute("SELECT count(*) = 0 FROM wire.batches").fetchone() == (True,)


def _reads(suites: Iterable[gates.Suite]) -> list[str]:
    """The marts that the queries of suites read."""
    return sorted({name for suite in suites for name in re.findall(r"marts\.(\w+)", suite.query)})


def set_aside(warehouse: Path, store: Store, failure: Failure) -> Iterator[str]:
    """Find the batches that a failure comes from and take them out; a line for a person about each sender.

    No line: it comes from no batch. Raises StoreUnavailableError, StoreRefusedError, duckdb.Error.
    """
    keys = isolation.culprits(warehouse, lambda file: _fails(file, failure))
    if not keys:
        return
    reasons = dict.fromkeys(keys, failure.reason)
    registry.set_aside(warehouse.parent, reasons)
    with database.connect(warehouse) as connection:
        load.prepare(connection)
        exclusion.exclude(connection, store, reasons, admission=registry.admission_policy(warehouse.parent, store))
    parts = [parsed.prefix for key in keys if (parsed := parse_manifest_key(key)) is not None]
    for (tenant, device), count in sorted(Counter((prefix.tenant, prefix.device) for prefix in parts).items()):
        yield f"set aside: {pluralize(count, 'batch')} of device {device}, tenant {tenant}: {failure.reason}"


def told(batches: dict[str, str]) -> Iterator[str]:
    """What is set aside now, with the command that brings it back."""
    for reason, count in sorted(Counter(batches.values()).items()):
        command = f"apiary quarantine replay --reason {reason}"
        yield f"{pluralize(count, 'batch')} set aside as {reason}; back with `{command}`"


def _fails(file: Path, failure: Failure) -> bool:
    folder = HOME.root / "dbt" / "trial"
    project = str(PROJECT.project_dir)
    command = [
        str(Path(sys.executable).with_name("dbt")), "--quiet", "--no-version-check", "build", "--indirect-selection",
        "empty", "--exclude-resource-type", "unit_test", "--select", *(f"+{name}" for name in failure.nodes),
        "--project-dir", project, "--profiles-dir", project, "--target-path", str(folder), "--log-path", str(folder),
    ]  # fmt: skip
    environment = os.environ | {"APIARY_WAREHOUSE": str(file), SETTING: Engine.DUCKDB}
    if subprocess.run(command, env=environment, capture_output=True, check=False).returncode:
        return True
    if failure.fails_after is None:
        return False
    with engine.connect(str(file)) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return failure.fails_after(connection)
