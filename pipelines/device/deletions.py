"""What was to be deleted of this device's data, when, at whose request, and what the server's receipt says of it.

Does not belong here: asking (consent.py), sending the request and fetching its receipt (outbox.py).
"""

from dataclasses import dataclass
from datetime import datetime

from pipelines.contract.numbers import pluralize
from pipelines.contract.receipts import (
    MAX_BYTES,
    ErasureReceipt,
    ReceiptError,
    parse_receipt,
    parse_request,
    read_receipt,
    receipts_prefix,
)
from pipelines.device.enrolment import Enrolment
from pipelines.device.state import State
from pipelines.store import Store


@dataclass(frozen=True)
class Deletion:
    """One request. `requested_at`: None if it was not this device's owner who asked. `receipt`: None while it waits;
    `sent_at`: when the request reached the store."""

    request_id: str
    epochs: tuple[str, ...]
    requested_at: datetime | None
    sent_at: datetime | None
    receipt: ErasureReceipt | None

    def __str__(self) -> str:
        whose = (
            f"at the request of this device's owner of {_time(self.requested_at)}"
            if self.requested_at
            else "at a request of those who run the warehouse"
        )
        if self.receipt is None:
            sent = f"in the store since {_time(self.sent_at)}" if self.sent_at else "not in the store yet"
            return f"deletion asked for at {_time(self.requested_at)}: {sent}, not carried out yet"
        said = self.receipt
        text = (
            f"deleted at {_time(said.erased_at)} {whose}: {pluralize(said.objects_deleted, 'object')} of the store,"
            f" {pluralize(said.rows_deleted, 'row')} of the warehouse (request {self.request_id[:8]})"
        )
        findings = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in said.findings.items())
        return f"{text}; the search for what is left also says: {findings}" if findings else text


def asked(state: State) -> list[Deletion]:
    """The requests of this device's owner, oldest first."""
    found = []
    for key, body, sent_at, receipt in state.requests():
        request = parse_request(key, body)
        sent = datetime.fromisoformat(sent_at) if sent_at else None
        found.append(Deletion(request.request_id, request.epochs, request.requested_at, sent, read_receipt(receipt)))
    return found


def of_others(store: Store, enrolled: Enrolment, own: list[Deletion]) -> list[Deletion]:
    """Deletions of this device's data that others asked for, by their receipts. Raises StoreUnavailableError."""
    place = {"region": enrolled.region, "tenant": enrolled.tenant}
    known = {item.request_id for item in own}
    found = []
    for entry in store.list(receipts_prefix(**place, device=enrolled.device_id)):
        try:
            receipt = parse_receipt(entry.key, store.get(entry.key, limit=MAX_BYTES), **place)
        except (ReceiptError, KeyError):
            continue
        if receipt.request_id not in known and receipt.device == enrolled.device_id:
            found.append(Deletion(receipt.request_id, receipt.epochs, None, None, receipt))
    return found


def _time(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC" if at else "?"
