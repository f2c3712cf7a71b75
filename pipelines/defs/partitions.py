"""How work is cut by day. Ingestion goes by the day of arrival, which is the store's clock.

Does not belong here: the days of usage; those are the marts' and may be touched by any arrival.
"""

from datetime import date

import dagster as dg

ARRIVAL_DAYS = dg.DailyPartitionsDefinition(start_date="2025-01-01", end_offset=1)


def arrival_range(first: date, last: date) -> dict[str, str]:
    """The run tags that mean the arrival days from `first` to `last` in one run."""
    return {
        "dagster/asset_partition_range_start": first.isoformat(),
        "dagster/asset_partition_range_end": last.isoformat(),
    }
