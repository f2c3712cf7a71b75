"""Quota snapshots for devices, once the marts were published.

Does not belong here: what a snapshot holds (warehouse/quota.py).
"""

import dagster as dg
from dagster_duckdb import DuckDBResource

from pipelines.contract.numbers import pluralize
from pipelines.defs.ownership import labels
from pipelines.defs.partitions import BY_ARRIVAL
from pipelines.defs.publish import published_marts
from pipelines.defs.resources import WRITER, StoreResource
from pipelines.defs.retries import retried
from pipelines.warehouse import quota


@dg.asset(
    key=["quota", "snapshots"], deps=[published_marts, dg.AssetKey(["marts", "mart_budget"])], **labels("quota"),
    kinds={"json"}, pool=WRITER, **BY_ARRIVAL,
)  # fmt: skip
def quota_snapshots(
    context: dg.AssetExecutionContext, duckdb: DuckDBResource, store: StoreResource
) -> dg.MaterializeResult[None]:
    """What each tenant used of its budgets, where its devices look for it."""
    with retried(context), duckdb.get_connection() as connection:
        keys = quota.publish(connection, store.open())
    context.log.info(f"{pluralize(len(keys), 'quota snapshot')} published")
    return dg.MaterializeResult(metadata={"snapshots": len(keys)})
