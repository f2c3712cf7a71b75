"""The jobs and when they run. They start by themselves where `APIARY_SCHEDULES=on`; else each is shown as stopped.

Does not belong here: what a job does (the assets), runs for what arrived (arrival_sensor.py).
"""

import os
from datetime import UTC, date, datetime, timedelta

import dagster as dg

from pipelines.defs.partitions import arrival_range, nearest

SCHEDULES = "APIARY_SCHEDULES"
LOOK_BACK_DAYS = 31  # a batch is loaded on the day it arrives; after an outage the days missed are taken along


def _are_on() -> bool:
    """Whether the setting says that schedules and sensors start by themselves. Raises ValueError."""
    setting = os.environ.get(SCHEDULES) or "off"
    if setting not in ("on", "off"):
        raise ValueError(f"{SCHEDULES} is {setting!r}: say on or off")
    return setting == "on"


# What a person switched in the UI stays as it was switched.
SCHEDULE_STATUS = dg.DefaultScheduleStatus.RUNNING if _are_on() else dg.DefaultScheduleStatus.STOPPED
SENSOR_STATUS = dg.DefaultSensorStatus.RUNNING if _are_on() else dg.DefaultSensorStatus.STOPPED

_of_the_month = dg.AssetSelection.assets("billing/monthly_statement")
_of_the_months_end = dg.AssetSelection.assets("billing/month_end_step", "billing/month_end_statements")
daily = dg.define_asset_job(
    "daily",
    selection=dg.AssetSelection.all() - _of_the_month - _of_the_months_end,
    executor_def=dg.in_process_executor,
    description="Everything but the month's: load what arrived, build and test the marts, publish, export.",
)
erasure = dg.define_asset_job(
    "erasure",
    selection=dg.AssetSelection.assets("erasure/requests", "erasure/receipts"),
    executor_def=dg.in_process_executor,
    description="Erase what is on the suppression list, without models or statements. The daily job does it too.",
)
monthly = dg.define_asset_job(
    "monthly",
    selection=_of_the_month,
    executor_def=dg.in_process_executor,
    description="The statement of the month that has ended.",
)


month_end = dg.define_asset_job(
    "month_end",
    selection=_of_the_months_end,
    executor_def=dg.in_process_executor,
    description="A step of the month's end, with a name, a reason and a signature; then its statements.",
)


@dg.schedule(job=daily, cron_schedule="15 1 * * *", execution_timezone="UTC", default_status=SCHEDULE_STATUS)
def daily_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """Every night: what arrived until now. Batches loaded before are passed over, so days may overlap."""
    today: date = (context.scheduled_execution_time or datetime.now(UTC)).date()
    first = nearest(today - timedelta(days=LOOK_BACK_DAYS), today=today)
    return dg.RunRequest(tags=arrival_range(first, today))


erasure_schedule = dg.ScheduleDefinition(
    name="erasure_schedule", job=erasure, cron_schedule="45 0,12 * * *", execution_timezone="UTC",
    default_status=SCHEDULE_STATUS,
)  # fmt: skip


@dg.schedule(job=monthly, cron_schedule="15 3 4 * *", execution_timezone="UTC", default_status=SCHEDULE_STATUS)
def monthly_schedule() -> dg.RunRequest:
    """On the fourth, two hours after the night's run: late usage of the month had its 72 hours by then."""
    return dg.RunRequest()
