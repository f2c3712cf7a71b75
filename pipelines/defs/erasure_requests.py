"""Requests of devices' owners to be erased: written down before anything is loaded.

Does not belong here: erasing (erasure.py, warehouse/erase.py), the list itself (warehouse/suppression.py).
"""

import dagster as dg
from dagster_duckdb import DuckDBResource

from pipelines.contract.numbers import pluralize
from pipelines.defs.ownership import labels
from pipelines.defs.partitions import BY_ARRIVAL
from pipelines.defs.resources import WRITER, StoreResource
from pipelines.defs.retries import retried
from pipelines.warehouse import suppression


@dg.asset(key=["erasure", "requests"], **labels("erasure"), pool=WRITER, **BY_ARRIVAL)
def erasure_requests(
    context: dg.AssetExecutionContext, duckdb: DuckDBResource, store: StoreResource
) -> dg.MaterializeResult[None]:
    """The suppression list: nothing that it names is loaded from here on."""
    del duckdb  # the run waits for its turn and names its process
    with retried(context):
        opened = store.open()
        found = suppression.record_requests(opened)
        if found.unreadable:
            context.log.warning(
                f"passed over, no request of an owner: {pluralize(len(found.unreadable), 'object')},"
                f" such as {found.unreadable[0]}"
            )
        listed = suppression.load(opened)
        waiting = suppression.pending(opened, listed)
    return dg.MaterializeResult(metadata={"listed": len(listed.listed), "waiting": len(waiting)})
