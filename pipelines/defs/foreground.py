"""The whole job once, in the foreground: what `apiary run` does.

Does not belong here: what the job is (schedules.py).
"""

import io
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import yaml
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.definitions.repository_definition import SINGLETON_REPOSITORY_NAME
from dagster._core.execution.api import execute_run
from dagster._core.execution.execution_result import ExecutionResult
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin

from pipelines import log_format
from pipelines.defs import last_run
from pipelines.defs.orphaned_runs import IN_PROGRESS, end_orphaned_children, fail_orphaned_runs, process_tags
from pipelines.defs.partitions import arrival_range, nearest
from pipelines.defs.resources import WarehouseResource
from pipelines.errors import ExpectedError
from pipelines.home import Home, private_folder
from pipelines.store import open_store
from pipelines.warehouse import database, landing, load, opening, quarantine

INSTANCE = """\
# Written once by apiary; edit it as you like.
telemetry: {enabled: false}
nux: {enabled: false}
concurrency: {pools: {default_limit: 1, granularity: run}} # the warehouse has one writer: a whole run
run_monitoring:
  enabled: true
  start_timeout_seconds: 600 # a backfill of many days is written down before it starts, each asset of each day
  cancel_timeout_seconds: 60
  free_slots_after_run_end_seconds: 5 # of a run that ended without giving them back
"""
POSTGRES = "APIARY_DAGSTER_POSTGRES"
# The address holds a password: it stays in the environment.
STORAGE = f"""\
storage:
  postgres:
    postgres_url: {{env: {POSTGRES}}} # without it: SQLite files in this folder
"""
# Files that apiary wrote and nobody has edited: they are replaced by the one above.
EARLIER = (
    """\
# Written once by apiary; edit it as you like.
telemetry: {enabled: false}
nux: {enabled: false}
concurrency: {pools: {default_limit: 1, granularity: run}} # the warehouse has one writer: a whole run
run_monitoring:
  enabled: true
  start_timeout_seconds: 180
  cancel_timeout_seconds: 60
  free_slots_after_run_end_seconds: 5 # of a run that ended without giving them back
""",
    """\
# Written once by apiary; edit it as you like.
telemetry: {enabled: false}
nux: {enabled: false}
concurrency: {pools: {default_limit: 1}} # the warehouse has one writer
""",
)
NEEDED = {
    ("concurrency", "pools", "granularity"): "run",
    ("run_monitoring", "enabled"): True,
    ("run_monitoring", "free_slots_after_run_end_seconds"): 5,
}
LOCATION = "apiary"  # of workspace.yaml
STOP_SECONDS = 0.5  # for marking the run; who cannot be told finds its process gone


class RunFailedError(ExpectedError):
    """The job did not end well; the text says which step and why."""


_set_here: str | None = None  # the DAGSTER_HOME that this process set; any other value is a person's


def make_instance_home(home: Home) -> Path:
    """Dagster's own folder, with its settings, and the variable that names it. A file that a person edited stays.

    Records of runs are kept in PostgreSQL where `APIARY_DAGSTER_POSTGRES` is its address, otherwise in that folder.
    A DAGSTER_HOME that the caller's environment sets is used as it is.
    """
    global _set_here  # noqa: PLW0603
    named = os.environ.get("DAGSTER_HOME", "")
    folder = private_folder(Path(named).expanduser().absolute() if named not in ("", _set_here) else home.dagster)
    settings = folder / "dagster.yaml"
    wanted = INSTANCE + (STORAGE if os.environ.get(POSTGRES) else "")
    if not settings.exists() or settings.read_text("utf-8") in {*EARLIER, INSTANCE, INSTANCE + STORAGE} - {wanted}:
        settings.write_text(wanted, "utf-8")
    for line in _lacking(settings):
        log_format.write(
            f"apiary: {settings} lacks `{line}`: add it, or a run that is killed may keep others waiting",
            level="warning",
        )
    os.environ["DAGSTER_HOME"] = str(folder)
    if folder == home.dagster:
        _set_here = str(folder)
    return folder


def _lacking(settings: Path) -> list[str]:
    """Settings that a person's file does not have, as they would be written."""
    try:
        found = yaml.safe_load(settings.read_text("utf-8")) or {}
    except yaml.YAMLError:
        return []  # Dagster says what is wrong with it
    lacking = []
    for path, value in NEEDED.items():
        here = found
        for name in path:
            here = here.get(name) if isinstance(here, dict) else None
        if here is None:
            lacking.append(f"{'.'.join(path)}: {str(value).lower()}")
    return lacking


def run(home: Home, store_url: str, *, day: date | None = None) -> None:
    """Run the job for one arrival day, or for everything that is pending; the caller holds the lock of the warehouse.

    Raises RunFailedError, StoreUnavailableError.
    """
    started = time.monotonic()
    make_instance_home(home)
    end_orphaned_children()
    read = last_run.inputs(home, open_store(store_url), today=datetime.now(UTC))
    last_run.forget(home)
    first, last = (day, day) if day else _pending_days(home, store_url)
    _execute(home, "daily", arrival_range(first, last))
    with WarehouseResource(database=str(home.warehouse)).get_connection() as connection:
        waits = quarantine.may_pass(connection)
    if day is None and not waits:
        last_run.record(home, read, seconds=time.monotonic() - started)


def erase(home: Home, store_url: str) -> None:
    """Run the erasure alone, which needs neither models nor statements; the caller holds the lock of the warehouse.

    Raises RunFailedError, StoreUnavailableError.
    """
    make_instance_home(home)
    next(iter(open_store(store_url).list(landing.ROOT)), None)  # one that does not answer is told in its own words
    today = datetime.now(UTC).date()
    _execute(home, "erasure", arrival_range(today, today))


def _execute(home: Home, job: str, tags: dict[str, str]) -> None:
    from pipelines.definitions import defs
    from pipelines.defs import operation_alerts

    with dg.DagsterInstance.get() as instance, _counted_dbt():
        fail_orphaned_runs(instance)
        result = execute(defs.resolve_job_def(job), instance, tags | process_tags(), {"loggers": {"progress": {}}})
        checks = defs.get_repository_def().asset_graph.asset_check_keys
        for failure in operation_alerts.tell(home, operation_alerts.find(instance, checks, now=datetime.now(UTC))):
            log_format.write(failure, level="warning")
    if not result.success:
        raise RunFailedError(f"{_why(result)}; {_what_is_done(result)}")


def execute(
    job: dg.JobDefinition, instance: dg.DagsterInstance, tags: Mapping[str, str], run_config: Mapping[str, Any]
) -> ExecutionResult:
    """Run a job in this process. Its run belongs to the code location, so that the UI shows it among the daemon's."""
    location = RegisteredCodeLocationOrigin(LOCATION)
    origin = RemoteJobOrigin(RemoteRepositoryOrigin(location, SINGLETON_REPOSITORY_NAME), job.name)
    run = instance.create_run_for_job(job, tags=tags, run_config=run_config, remote_job_origin=origin)
    return execute_run(InMemoryJob(job), run, instance)


RESULTS = {
    ("billing", "statements"): "the billing days are exported",
    ("published", "marts"): "the marts are published",
    ("quota", "snapshots"): "the quota snapshots are published",
}


def _what_is_done(result: ExecutionResult) -> str:
    """What a failed run has changed for its readers: told by what it materialised, not by where it failed."""
    made = {
        tuple(event.asset_key.path) for event in result.all_events if event.is_step_materialization and event.asset_key
    }
    done = [text for key, text in RESULTS.items() if key in made]
    if ("published", "marts") in made:
        return f"before that, {', '.join(done)}"
    return (
        f"{f'before that, {done[0]}' if done else 'nothing was published or exported'}; what was published before stays"
    )


@contextmanager
def ending_on_signals() -> Iterator[None]:
    """End this process within two seconds of Ctrl-C or TERM, whatever it is in: a query of the engine, a wait, dbt.

    Handlers of Python run between two steps of the main thread, which may be minutes away. What a run does is safe
    against any death; its run is marked as canceled, and what it started is ended with it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.signal(signal.SIGTERM, lambda *_: None)  # by default the process would be gone with no word
    wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_end_when_signalled, args=(reading,), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGTERM, before)
        os.close(writing)


def _end_when_signalled(reading: int) -> None:
    while numbers := os.read(reading, 64):
        asked = {signal.SIGINT, signal.SIGTERM}.intersection(numbers)
        if asked:
            log_format.write("apiary: stopped; what was done stays done, run it again to go on", level="warning")
            for child in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    child.kill()
            canceling = threading.Thread(target=_cancel_own_run, daemon=True)
            canceling.start()
            canceling.join(STOP_SECONDS)
            os._exit(128 + min(asked))
    os.close(reading)


def _cancel_own_run() -> None:
    with suppress(Exception), dg.DagsterInstance.get() as instance:  # who cannot be told, finds the process gone
        mine = dg.RunsFilter(statuses=IN_PROGRESS, tags=process_tags())
        for run in instance.get_runs(filters=mine):
            instance.report_run_canceled(run, "stopped by a signal")
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)


def _why(result: ExecutionResult) -> str:
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
        text = f"{aside} would not open and was set aside; what it held is loaded again from the landing"
        log_format.write(text, level="warning")
    if database.exists(home.warehouse):
        # The resource waits for a process that is about to let go of the file, such as the dbt of a killed run.
        with WarehouseResource(database=str(home.warehouse)).get_connection() as connection:
            load.prepare(connection)
            known = load.known_manifests(connection)
    today = datetime.now(UTC).date()
    arrivals = landing.pending(open_store(store_url), known)
    days = [nearest(arrival.received_at.date(), today=today) for arrival in arrivals]
    return (min(days), max(days)) if days else (today, today)


class _Counter(io.TextIOBase):
    """Takes what dbt prints: shows how far it is, and the lines that say what failed."""

    _done = re.compile(r"(\d+) of (\d+) (\w+)")

    def write(self, text: str) -> int:
        for line in text.splitlines():
            found = self._done.search(line)
            if found and found[3] in ("FAIL", "ERROR"):
                log_format.write(f"          {line}", level="error")
            elif found and found[3] != "START" and sys.stderr.isatty():
                sys.stderr.write(f"\r          {found[1]} of {found[2]}\r")
        return len(text)


@contextmanager
def _counted_dbt() -> Iterator[None]:
    with redirect_stdout(_Counter()):
        yield
