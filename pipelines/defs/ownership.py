"""Who answers for an asset, and how it is found: owners, tags and freshness of everything in `defs/`.

Does not belong here: what assets do (the modules beside), owners of models (`meta.owner` in dbt).
"""

from datetime import timedelta
from typing import TypedDict

import dagster as dg

from pipelines.warehouse.schemas import INTERNAL

OWNERS = {"billing": "team:finance-data", "books": "team:finance-data", "erasure": "team:privacy"}
DEFAULT_OWNER = "team:data-platform"
# The daily job runs once a day: an hour late is told, two days without one is a failure.
FRESHNESS = dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=50), warn_window=timedelta(hours=26))
PERSONAL = ("wire", "staging", *INTERNAL, "published", "erasure")
"""Groups whose rows name a user or a device, if only by a hash."""


class Labels(TypedDict):
    """Arguments of `dg.asset` and `dg.AssetSpec`."""

    group_name: str
    owners: list[str]
    tags: dict[str, str]
    freshness_policy: dg.FreshnessPolicy | None


def labels(group: str) -> Labels:
    """What the assets of a group are given beside what they do."""
    return {
        "group_name": group,
        "owners": [OWNERS.get(group, DEFAULT_OWNER)],
        "tags": {"layer": group, "personal_data": "true" if group in PERSONAL else "false"},
        "freshness_policy": FRESHNESS if group == "published" else None,
    }
