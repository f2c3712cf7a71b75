"""The whole job once, in the foreground: what `apiary run` does.

Does not belong here: what the job is (schedules.py).
"""

import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_duckdb import DuckDBResource

from pipelines.defs.partitions import arrival_range, nearest
from pipelines.errors import ExpectedError
from pipelines.home import Home, private_folder
from pipelines.store import open_store
from pipelines.warehouse import landing, load, opening

INSTANCE = """\
# Written once by apiary; edit it as you like.
telemetry: {enabled: false}
nux: {enabled: false}
concurrency: {pools: {default_limit: 1}} # the warehouse has one writer
"""
MINE = {"apiary/foreground": "true"}


class RunFailedError(ExpectedError):
    """The job did not end well; the text says which step and why."""


def make_instance_home(home: Home) -> Path:
    """Dagster's own folder, with its settings, and the variable that names it."""
    folder = private_folder(home.dagster)
    settings = folder / "dagster.yaml"
    if not settings.exists():
        settings.write_text(INSTANCE, "utf-8")
    os.environ["DAGSTER_HOME"] = str(folder)
    return folder


def run(home: Home, store_url: str, *, day: date | None = None) -> None:
    """Run the job for one arrival day, or for everything that is pending.

    Raises RunFailedError, StoreUnavailableError.
    """
    make_instance_home(home)
    first, last = (nearest(day, today=day),) * 2 if day else _pending_days(home, store_url)
    from pipelines.definitions import defs

    with dg.DagsterInstance.get() as instance, _counted_dbt():
        _bury_the_dead(instance)
        result = defs.resolve_job_def("daily").execute_in_process(
            instance=instance,
            tags=arrival_range(first, last) | MINE,
            run_config={"loggers": {"progress": {}}},
            raise_on_error=False,
        )
    if not result.success:
        raise RunFailedError(f"{_why(result)}; nothing was published or exported, what was published before stays")


def _why(result: dg.ExecuteInProcessResult) -> str:
    checks = [
        f"{evaluation.asset_key.path[-1]}.{evaluation.check_name}"
        for evaluation in result.get_asset_check_evaluations()
        if not evaluation.passed and evaluation.severity is dg.AssetCheckSeverity.ERROR
    ]
    if checks:
        return f"checks failed: {', '.join(checks)}"
    steps = [
        f"{event.step_key} ({_cause(event.step_failure_data.error)})"
        for event in result.all_events
        if event.is_step_failure
    ]
    return f"failed in: {', '.join(steps)}"


def _cause(error: Any) -> str:
    """What an asset raised, in one line; Dagster's own errors stand around it."""
    while error is not None and error.cause is not None:
        error = error.cause
    first = next(iter(error.message.strip().splitlines()), "") if error else ""
    return re.sub(r"^[\w.]*\.(\w+: )", r"\1", first)  # without the modules before the error's name


def _pending_days(home: Home, store_url: str) -> tuple[date, date]:
    """The arrival days of what is not loaded yet; today if there is nothing."""
    known: set[str] = set()
    for aside in opening.make_openable(home.warehouse):
        sys.stderr.write(f"{aside} would not open and was set aside; what it held is loaded again from the landing\n")
    if home.warehouse.exists():
        # The resource waits for a process that is about to let go of the file, such as the dbt of a killed run.
        with DuckDBResource(database=str(home.warehouse)).get_connection() as connection:
            load.prepare(connection)
            known = load.known_manifests(connection)
    today = datetime.now(UTC).date()
    arrivals = landing.pending(open_store(store_url), known)
    days = [nearest(arrival.received_at.date(), today=today) for arrival in arrivals]
    return (min(days), max(days)) if days else (today, today)


def _bury_the_dead(instance: dg.DagsterInstance) -> None:
    """Runs of ours that were killed still hold the writer's slot: the next run would wait for them for ever.

    The caller holds the lock of the warehouse, so no run of ours is alive.
    """
    alive = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING], tags=MINE)
    for dead in instance.get_runs(filters=alive):
        instance.report_run_failed(dead, "the process was killed")
        instance.event_log_storage.free_concurrency_slots_for_run(dead.run_id)


class _Counter(io.TextIOBase):
    """Takes what dbt prints: shows how far it is, and the lines that say what failed."""

    _done = re.compile(r"(\d+) of (\d+) (\w+)")

    def write(self, text: str) -> int:
        for line in text.splitlines():
            found = self._done.search(line)
            if found and found[3] in ("FAIL", "ERROR"):
                sys.stderr.write(f"          {line}\n")
            elif found and found[3] != "START" and sys.stderr.isatty():
                sys.stderr.write(f"\r          {found[1]} of {found[2]}\r")
        return len(text)


@contextmanager
def _counted_dbt() -> Iterator[None]:
    with redirect_stdout(_Counter()):
        yield
