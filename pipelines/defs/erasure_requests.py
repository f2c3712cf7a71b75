"""Requests of devices' owners to be erased: written down before anything is loaded.

Does not belong here: erasing (erasure.py, warehouse/erase.py), the list itself (warehouse/suppression.py).
"""

import dagster as dg

from pipelines.defs.resources import WRITER, StoreResource
from pipelines.warehouse import suppression


@dg.asset(key=["erasure", "requests"], group_name="erasure", pool=WRITER)
def erasure_requests(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult[None]:
    """The suppression list: nothing that it names is loaded from here on."""
    opened = store.open()
    found = suppression.record_requests(opened)
    if found.unreadable:
        context.log.warning(f"{len(found.unreadable)} objects under x1/ are no requests: {found.unreadable[0]}")
    listed = suppression.load(opened)
    waiting = suppression.pending(opened, listed)
    return dg.MaterializeResult(metadata={"listed": len(listed.listed), "waiting": len(waiting)})
