"""Requests of the owner on their way: they go out although consent is withdrawn, and no limit holds them back; then
the server's receipts for them are looked for until they are there.

Does not belong here: what a request says (consent.py), the form of either (contract/receipts.py), batches (ship.py).
"""

from datetime import UTC, datetime

from pipelines.contract.keys import request_keys
from pipelines.contract.receipts import MAX_BYTES, ReceiptError, parse_receipt, parse_request, receipts_prefix
from pipelines.device import consent
from pipelines.device.enrolment import Enrolment
from pipelines.device.state import State
from pipelines.failpoints import fp
from pipelines.store import Store, StoreRefusedError


def send(state: State, store: Store) -> int:
    """Put every request that has not reached the store; how many did.

    Raises StoreUnavailableError, StoreRefusedError.
    """
    requests = state.open_requests()
    for seq, key, body in requests:
        _put(store, key, body)
        fp("outbox.put")
        with state.step():
            state.request_sent(seq, datetime.now(UTC))
    fp("outbox.sent")
    current = consent.current(state)
    if current is not None and current.state == "withdrawn":
        consent.deletion_requested(state)
    return len(requests)


def _put(store: Store, key: str, body: bytes) -> None:
    """Put a request where the device may: credentials of release 0.1.0 allow the earlier place alone."""
    place, earlier = request_keys(key)
    try:
        store.put(place, body)
    except StoreRefusedError:
        store.put(earlier, body)


def confirm(state: State, enrolled: Enrolment, store: Store) -> int:
    """Look for the server's receipts for requests that reached the store; how many were found.

    An object that is no receipt for a request of ours is passed over: it says nothing. Raises StoreUnavailableError,
    StoreRefusedError.
    """
    waiting = state.unconfirmed_requests()
    if not waiting:
        return 0
    asked = {parse_request(key, body).request_id: seq for seq, key, body in waiting}
    place = {"region": enrolled.region, "tenant": enrolled.tenant}
    found = 0
    for entry in store.list(receipts_prefix(**place, device=enrolled.device_id)):
        if entry.size > MAX_BYTES:
            continue
        try:
            data = store.get(entry.key)
            receipt = parse_receipt(entry.key, data, **place)
        except (ReceiptError, KeyError):
            continue
        seq = asked.pop(receipt.request_id, None)
        if seq is None or receipt.device != enrolled.device_id:
            continue
        with state.step():
            state.confirm_request(seq, data)
        found += 1
    current = consent.current(state)
    if current is not None and current.state == "deletion_requested" and not asked:
        consent.confirmed(state)
    return found
