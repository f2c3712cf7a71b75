"""How runs are cut by day: by the day of arrival, which is the store's clock.

A partition of the wire is what arrived on that day. A partition of everything behind it says that the day has gone
through it. All assets of the daily job share one definition: Dagster makes one run of a backfill of them, and more of
one whose definitions differ. Does not belong here: the days of usage; any arrival may touch any of them.
"""

from datetime import date
from typing import TypedDict

import dagster as dg

from pipelines.home import Home
from pipelines.warehouse import arrivals

# Today, until `apiary run`, `apiary dev` or a load has noted the day of the landing's first batch.
FIRST_DAY = arrivals.first_day(Home.from_environment().first_arrival_day)
AND_BEFORE = "apiary/and_before"  # of a run: its first day was the first partition for whoever asked for it
ARRIVAL_DAYS = dg.DailyPartitionsDefinition(start_date=FIRST_DAY.isoformat(), end_offset=1)


class ByArrival(TypedDict):
    """Arguments of `dg.asset`, `dg.multi_asset` and `dbt_assets`."""

    partitions_def: dg.DailyPartitionsDefinition
    backfill_policy: dg.BackfillPolicy


BY_ARRIVAL: ByArrival = {"partitions_def": ARRIVAL_DAYS, "backfill_policy": dg.BackfillPolicy.single_run()}


def covered(day: date, *, first: date, last: date, today: date, and_before: bool = False) -> bool:
    """Whether a run of the arrival days from `first` to `last` covers a day; `and_before`: what the run's tags say.

    A store whose clock is wrong, or a landing that was copied, has days outside the partitions: the first partition
    covers all days before it, and today's all days after it.
    """
    return (first <= day or first == FIRST_DAY or and_before) and (day <= last or last >= today)


def nearest(day: date, *, today: date) -> date:
    """The partition that covers a day."""
    return min(max(day, FIRST_DAY), today)


def arrival_range(first: date, last: date) -> dict[str, str]:
    """The run tags that mean the arrival days from `first` to `last` in one run.

    A daemon knows the first day as it was when it started; a run that it asks for may know an earlier one by now.
    """
    return {
        "dagster/asset_partition_range_start": first.isoformat(),
        "dagster/asset_partition_range_end": last.isoformat(),
        **({AND_BEFORE: "true"} if first == FIRST_DAY else {}),
    }
