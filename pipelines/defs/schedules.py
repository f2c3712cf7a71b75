"""The jobs and when they run. They start by themselves where `APIARY_SCHEDULES=on`; else each is shown as stopped.

Does not belong here: what a job does (the assets), runs for what arrived (arrival_sensor.py).
"""

import os
from datetime import UTC, date, datetime, timedelta

import dagster as dg

from pipelines.defs.partitions import AND_BEFORE, FIRST_DAY, arrival_range, nearest

SCHEDULES = "APIARY_SCHEDULES"
LOOK_BACK_DAYS = 31  # after an outage the partitions that were missed are made good, this far back
WIRE = dg.AssetKey(["wire", "batches"])


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


@dg.schedule(
    job=daily, cron_schedule="15 1 * * *", execution_timezone="UTC", default_status=SCHEDULE_STATUS,
    description="Every night: what arrived and is not loaded yet, through the whole job.",
)  # fmt: skip
def daily_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """Every night: all that arrived until now and is not loaded, whenever that was.

    Its partitions begin on the day before the first one that was missed: that day may have gone on after its run.
    """
    today: date = (context.scheduled_execution_time or datetime.now(UTC)).date()
    done = context.instance.get_materialized_partitions(WIRE)
    days = (today - timedelta(days=back) for back in range(LOOK_BACK_DAYS, -1, -1))
    missed = next((day for day in days if day >= FIRST_DAY and day.isoformat() not in done), today)
    first = nearest(missed - timedelta(days=1), today=today)
    return dg.RunRequest(tags=arrival_range(first, today) | {AND_BEFORE: "true"})


@dg.schedule(
    job=erasure, cron_schedule="45 0,12 * * *", execution_timezone="UTC", default_status=SCHEDULE_STATUS,
    description="Twice a day: erase what was asked for, without waiting for the night.",
)  # fmt: skip
def erasure_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """Twice a day, so that nobody waits for a night's run to be forgotten."""
    today: date = (context.scheduled_execution_time or datetime.now(UTC)).date()
    return dg.RunRequest(tags=arrival_range(today, today))


@dg.schedule(
    job=monthly, cron_schedule="15 3 4 * *", execution_timezone="UTC", default_status=SCHEDULE_STATUS,
    description="On the fourth: the first statements of the month that has ended, once late usage had its time.",
)  # fmt: skip
def monthly_schedule() -> dg.RunRequest:
    """On the fourth, two hours after the night's run: late usage of the month had its 72 hours by then."""
    return dg.RunRequest()
