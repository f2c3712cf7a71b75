"""A build that fails on somebody's rows: whose they are is found, they are set aside, and everybody else's go on.

What fails without any batch too is a fault of the models or the books: the run fails with it. Does not belong here:
finding batches (warehouse/isolation.py), taking them out (warehouse/exclusion.py), the build itself (transform.py).
"""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb as engine

from pipelines.contract.keys import parse_manifest_key
from pipelines.defs.dbt_project import PROJECT
from pipelines.defs.resources import HOME
from pipelines.quality import gates
from pipelines.store import Store
from pipelines.warehouse import budgets, exclusion, isolation, load, registry

Look = Callable[[engine.DuckDBPyConnection], list[str]]
OVER_BUDGET = "row_budget"
MOST_ROUNDS = 3  # of building, finding out and building again in one run
REASONS = {"model": "failed_model", "test": "failed_test", "snapshot": "failed_model", "seed": "failed_model"}


@dataclass(frozen=True)
class Failure:
    """What failed: models and tests by the names that dbt selects, what is looked at once they are built (None if it is
    good), and the reason that the ledger gives."""

    nodes: tuple[str, ...]
    looked_at: Look | None
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


def failure_after(warehouse: Path, manifest: dict[str, Any]) -> Failure | None:
    """What is wrong with models that were built: more rows than their budgets, or a departure gate that would stop."""
    budgets_of = {
        f"{node['schema']}.{node['name']}": int(node["meta"]["max_rows_per_input_row"])
        for node in manifest["nodes"].values()
        if node["resource_type"] == "model"
    }

    def over_budget(connection: engine.DuckDBPyConnection) -> list[str]:
        return budgets.exceeded(connection, budgets_of)

    with engine.connect(str(warehouse)) as connection:
        for look, word in ((over_budget, OVER_BUDGET), (_stopped, "failed_gate")):
            if tables := look(connection):
                names = tuple(table.split(".")[-1] for table in tables)
                return Failure(names, look, f"{word}:{names[0]}")
    return None


def _stopped(connection: engine.DuckDBPyConnection) -> list[str]:
    """Tables whose suites of the departure gate would stop the publication."""
    connection.execute("SET TimeZone = 'UTC'")
    return [
        suite.table
        for suite in gates.suites("departure")
        if any(result.is_critical and not result.passed for result in gates.run(suite, connection))
    ]


def set_aside(warehouse: Path, store: Store, failure: Failure) -> Iterator[str]:
    """Find the batches that a failure comes from and take them out; a line for a person about each sender.

    No line: it comes from no batch. Raises StoreUnavailableError, StoreRefusedError, duckdb.Error.
    """
    keys = isolation.culprits(warehouse, lambda file: _fails(file, failure))
    if not keys:
        return
    reasons = dict.fromkeys(keys, failure.reason)
    registry.set_aside(warehouse.parent, reasons)
    with engine.connect(str(warehouse)) as connection:
        load.prepare(connection)
        exclusion.exclude(connection, store, reasons, judge=registry.judge(warehouse.parent, store))
    parts = [parsed.prefix for key in keys if (parsed := parse_manifest_key(key)) is not None]
    for (tenant, device), count in sorted(Counter((prefix.tenant, prefix.device) for prefix in parts).items()):
        yield f"set aside: {count} batches of device {device}, tenant {tenant}: {failure.reason}"


def told(batches: dict[str, str]) -> Iterator[str]:
    """What is set aside now, with the command that brings it back."""
    for reason, count in sorted(Counter(batches.values()).items()):
        yield f"{count} batches are set aside as {reason}; back with `apiary quarantine replay --reason {reason}`"


def _fails(file: Path, failure: Failure) -> bool:
    folder = HOME.root / "dbt" / "trial"
    project = str(PROJECT.project_dir)
    command = [
        str(Path(sys.executable).with_name("dbt")), "--quiet", "--no-version-check", "build", "--indirect-selection",
        "empty", "--exclude-resource-type", "unit_test", "--select", *(f"+{name}" for name in failure.nodes),
        "--project-dir", project, "--profiles-dir", project, "--target-path", str(folder), "--log-path", str(folder),
    ]  # fmt: skip
    environment = os.environ | {"APIARY_WAREHOUSE": str(file)}
    if subprocess.run(command, env=environment, capture_output=True, check=False).returncode:
        return True
    if failure.looked_at is None:
        return False
    with engine.connect(str(file)) as connection:
        is_empty = connection.execute("SELECT count(*) = 0 FROM wire.batches").fetchone() == (True,)
        return not is_empty and not set(failure.nodes).isdisjoint(
            table.split(".")[-1] for table in failure.looked_at(connection)
        )
