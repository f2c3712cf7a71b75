"""Runs whose process is gone: Dagster would take them for running for ever, and keep everybody else waiting.

Every run writes its process on itself when it begins. A process that was killed, or a machine that went down, leaves
such a run behind; it is failed and its slots are freed by the next `apiary run` and, every half minute, by the daemon.
Does not belong here: who may write the warehouse (warehouse/lock.py).
"""

import os
import time
from collections.abc import Mapping
from contextlib import suppress

import dagster as dg
import psutil

PID_TAG, STARTED_TAG = "apiary/pid", "apiary/process_started_at"
RUN_PROCESS = "APIARY_RUN_PROCESS"
"""The environment variable by which what a run starts (dbt) is known when the run is gone: its pid and start."""
# A clock that was set moves the start of every process; another process under the same number starts much later.
TOLERANCE_SECONDS = 60
# Between its beginning and its process tags lie the imports of the warehouse's libraries, no more.
UNTAGGED_SECONDS = 180
EVERY_SECONDS = 30
IN_PROGRESS = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


def process_tags() -> dict[str, str]:
    """The tags that say which process a run is."""
    return {PID_TAG: str(os.getpid()), STARTED_TAG: str(int(psutil.Process().create_time()))}


def end_orphaned_children() -> list[int]:
    """Have what this process starts bear its name, and end what runs started that are gone; the ids of what was ended.

    A dbt that outlives its run holds the warehouse's file, and nobody waits for what it does.
    """
    os.environ[RUN_PROCESS] = " ".join(process_tags().values())
    ended = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):  # another user's, or gone by now
            owner = process.environ().get(RUN_PROCESS, "").split(" ")
            if len(owner) == 2 and not _is_alive(dict(zip((PID_TAG, STARTED_TAG), owner, strict=True))):
                process.kill()
                ended.append(process.pid)
    return ended


def fail_orphaned_runs(instance: dg.DagsterInstance) -> list[str]:
    """Fail runs whose process is gone, and free the slots of every run that has ended; the ids of the failed ones."""
    failed = []
    for record in instance.get_run_records(filters=dg.RunsFilter(statuses=IN_PROGRESS)):
        run = record.dagster_run
        if (reason := _why_gone(run.tags, record.start_time)) is None:
            continue
        now = instance.get_run_by_id(run.run_id)
        if now is not None and not now.is_finished:  # its last words may have come while we looked for its process
            instance.report_run_failed(now, reason)
            failed.append(run.run_id)
    storage = instance.event_log_storage
    for run_id in storage.get_concurrency_run_ids() if storage.supports_global_concurrency_limits else ():
        holding = instance.get_run_by_id(run_id)
        if holding is None or holding.is_finished:
            storage.free_concurrency_slots_for_run(run_id)
    return failed


def _why_gone(tags: Mapping[str, str], started: float | None) -> str | None:
    """Why nothing of a run in progress is left; None if it may be at work."""
    if PID_TAG in tags:
        return None if _is_alive(tags) else f"the process {tags[PID_TAG]} of this run is gone"
    if started is None or time.time() - started < UNTAGGED_SECONDS:
        return None  # one that never starts is ended by run_monitoring (start_timeout_seconds)
    return "the process of this run was gone before it could name itself"


def _is_alive(tags: Mapping[str, str]) -> bool:
    with suppress(psutil.Error, ValueError):
        process = psutil.Process(int(tags[PID_TAG]))
        is_same = abs(process.create_time() - float(tags[STARTED_TAG])) < TOLERANCE_SECONDS
        return bool(is_same and process.status() != psutil.STATUS_ZOMBIE)
    return False


@dg.sensor(
    minimum_interval_seconds=EVERY_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    jobs=[],
    description="Fails runs whose process is gone, so that the next one can begin.",
)
def orphaned_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Look for them."""
    failed = fail_orphaned_runs(context.instance)
    return dg.SkipReason(f"failed: {', '.join(failed)}" if failed else "every run's process is there")
