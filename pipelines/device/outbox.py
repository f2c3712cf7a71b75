"""Requests of the owner on their way: they go out although consent is withdrawn, and no limit holds them back.

Does not belong here: what a request says (consent.py), batches (ship.py).
"""

from datetime import UTC, datetime

from pipelines.device import consent
from pipelines.device.state import State
from pipelines.failpoints import fp
from pipelines.store import Store


def send(state: State, store: Store) -> int:
    """Put every request that has not reached the store; how many did.

    Raises StoreUnavailableError, StoreRefusedError.
    """
    requests = state.open_requests()
    for seq, key, body in requests:
        store.put(key, body)
        fp("outbox.put")
        with state.step():
            state.request_sent(seq, datetime.now(UTC))
    fp("outbox.sent")
    current = consent.current(state)
    if current is not None and current.state == "withdrawn":
        consent.deletion_requested(state)
    return len(requests)
