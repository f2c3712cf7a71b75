"""The jobs and when they run.

Does not belong here: what a job does (the assets).
"""

from datetime import UTC, date, datetime, timedelta

import dagster as dg

from pipelines.defs.partitions import arrival_range

LOOK_BACK_DAYS = 31  # a batch is loaded on the day it arrives; after an outage the days missed are taken along

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


@dg.schedule(job=daily, cron_schedule="15 1 * * *", execution_timezone="UTC")
def daily_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """Every night: what arrived until now. Batches loaded before are passed over, so days may overlap."""
    today: date = (context.scheduled_execution_time or datetime.now(UTC)).date()
    return dg.RunRequest(tags=arrival_range(today - timedelta(days=LOOK_BACK_DAYS), today))


erasure_schedule = dg.ScheduleDefinition(
    name="erasure_schedule", job=erasure, cron_schedule="45 0,12 * * *", execution_timezone="UTC"
)


@dg.schedule(job=monthly, cron_schedule="15 3 4 * *", execution_timezone="UTC")
def monthly_schedule() -> dg.RunRequest:
    """On the fourth, two hours after the night's run: late usage of the month had its 72 hours by then."""
    return dg.RunRequest()
