"""The daily job and when it runs.

Does not belong here: what the job does (the assets).
"""

from datetime import UTC, date, datetime, timedelta

import dagster as dg

from pipelines.defs.partitions import arrival_range

LOOK_BACK_DAYS = 31  # a batch is loaded on the day it arrives; after an outage the days missed are taken along

daily = dg.define_asset_job(
    "daily",
    selection=dg.AssetSelection.all(),
    executor_def=dg.in_process_executor,
    description="Everything: load what arrived, build and test the marts, publish, export.",
)


@dg.schedule(job=daily, cron_schedule="15 1 * * *", execution_timezone="UTC")
def daily_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """Every night: what arrived until now. Batches loaded before are passed over, so days may overlap."""
    today: date = (context.scheduled_execution_time or datetime.now(UTC)).date()
    return dg.RunRequest(tags=arrival_range(today - timedelta(days=LOOK_BACK_DAYS), today))
