"""Retention as a job of its own: once a week what is past its time goes, Dagster's old runs among it.

Does not belong here: what is kept how long (policies/retention.yml), taking it (warehouse/retention.py).
"""

import json
from dataclasses import asdict
from datetime import UTC, datetime

import dagster as dg

from pipelines import engine
from pipelines.contract.numbers import pluralize
from pipelines.defs.resources import HOME, WRITER, StoreResource, WarehouseResource
from pipelines.defs.retries import retried
from pipelines.defs.schedules import SCHEDULE_STATUS
from pipelines.engine import Engine
from pipelines.home import Home, replace_file
from pipelines.store import Store
from pipelines.warehouse import retention
from pipelines.warehouse.retention import Line


def run(home: Home, store: Store, *, is_dry: bool) -> list[Line]:
    """Take what is past its time and write the receipt. Raises UsageError for wrong settings, EngineError."""
    engine.require(Engine.DUCKDB)  # a DuckLake keeps what is deleted in its snapshots
    now = datetime.now(UTC)
    policy = retention.load_policy()
    lines = retention.apply(home.warehouse, home.published, store, policy, now=now, is_dry=is_dry)
    lines.append(_take_runs(retention.before(policy, "dagster", now), is_dry=is_dry))
    if not is_dry:
        receipt = {"retained_at": now.isoformat(), "layers": [asdict(line) for line in lines]}
        replace_file(home.root / "retention" / f"{now:%Y%m%dT%H%M%S%f}.json", json.dumps(receipt, indent=1).encode())
    return lines


def _take_runs(limit: datetime | None, *, is_dry: bool) -> Line:
    if limit is None:
        return Line("dagster", note="kept for ever")
    ended = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
    with dg.DagsterInstance.get() as instance:
        records = instance.get_run_records(dg.RunsFilter(created_before=limit, statuses=ended))
        for record in records if not is_dry else ():
            instance.delete_run(record.dagster_run.run_id)
    return Line("dagster", rows=len(records))


@dg.op(pool=WRITER)
def apply_retention(context: dg.OpExecutionContext, duckdb: WarehouseResource, store: StoreResource) -> None:
    """Everything that `policies/retention.yml` lets go, while the resource holds the warehouse's lock."""
    del duckdb
    with retried(context):
        taken = run(HOME, store.open(), is_dry=False)
    for line in taken:
        context.log.info(
            f"{line.layer}: {pluralize(line.rows, 'row')}, {pluralize(line.objects, 'object')},"
            f" {pluralize(line.bytes, 'byte')} {line.note}"
        )


@dg.job(executor_def=dg.in_process_executor, description="What is past its time goes; a receipt says what went.")
def retention_job() -> None:
    """Once a week."""
    apply_retention()


retention_schedule = dg.ScheduleDefinition(
    name="retention", job=retention_job, cron_schedule="30 4 * * 0", execution_timezone="UTC",
    default_status=SCHEDULE_STATUS, description="Every Sunday: delete what policies/retention.yml has a time for.",
)  # fmt: skip
