"""Whose data may not be here any more: a list in the store that is only ever added to, and what it says of a batch.

Every load asks it, so neither a late batch nor a rebuild brings erased data back. It names nobody: a device or a user
stands in it as a salted digest, which tells a batch of theirs and can be told by nothing else.
Does not belong here: erasing what is here already (erase.py), loading (load.py).
"""

import hashlib
import json
import re
import secrets
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Literal

from pipelines.contract.keys import EARLIER_REQUESTS, REQUESTS, Owner, is_slug
from pipelines.contract.receipts import MAX_BYTES, ErasureRequest, ReceiptError, parse_request
from pipelines.errors import UsageError
from pipelines.store import Store
from pipelines.warehouse.landing import Arrival, Manifest

ROOT = "suppressions/v1/"
LISTED = f"{ROOT}listed/"
DONE = f"{ROOT}done/"
REASON = "suppressed"
ON_SHARED_DEVICE = "suppressed:shared_device"
MAX_TEXT = 200

Scope = Literal["device", "user", "tenant"]


@dataclass(frozen=True, kw_only=True)
class Suppression:
    """One line of the list.

    `subject`: the digest of the device or the user; of a tenant its name. `epochs`: digests of the lives of the device
    that are meant; empty means all, also those to come. `batches`: digests of single batches, for a user whose rows
    stand in batches of another user of the same device. `shared`: digests of devices that others used too; their
    chains stay, so the places of batches in them are kept.
    """

    request_id: str
    scope: Scope
    tenant: str
    actor: str
    reason: str
    recorded_at: str
    salt: str
    subject: str
    epochs: tuple[str, ...] = ()
    batches: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()

    def digest(self, value: str) -> str:
        """What stands in the list for a device, an epoch, a user or a batch."""
        return hashlib.sha256("\x1f".join(("suppress/1", self.salt, self.tenant, value)).encode()).hexdigest()[:32]

    def covers(self, *, tenant: str, device: str, epoch: str, user: str | None, key: str = "") -> bool:
        """Whether a batch is meant. Of an unknown user only its device and its key can tell."""
        if tenant != self.tenant:
            return False
        match self.scope:
            case "tenant":
                return True
            case "device":
                return self.digest(device) == self.subject and (not self.epochs or self.digest(epoch) in self.epochs)
            case "user":
                return (user is not None and self.digest(user) == self.subject) or (
                    bool(self.batches) and self.digest(key) in self.batches
                )

    def owns(self, owner: Owner | None) -> bool:
        """Whether everything in a device's place is meant. What lies outside its epochs is the whole device's."""
        if owner is None or owner.tenant != self.tenant or self.scope == "user":
            return False
        if self.scope == "tenant":
            return True
        is_device = self.digest(owner.device) == self.subject
        return is_device and (not self.epochs or owner.epoch is None or self.digest(owner.epoch) in self.epochs)

    def is_user(self, user: str) -> bool:
        """Whether it names this user."""
        return self.scope == "user" and self.digest(user) == self.subject

    def is_shared(self, device: str) -> bool:
        """Whether others used the device too."""
        return bool(self.shared) and self.digest(device) in self.shared

    def to_json(self) -> bytes:
        """The line's bytes."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode()

    @property
    def key(self) -> str:
        """Where the line lies."""
        return f"{LISTED}{self.request_id}.json"


class Suppressions:
    """The list as an admission policy."""

    def __init__(self, listed: Iterable[Suppression]) -> None:
        self.listed = tuple(listed)

    def refusal(self, arrival: Arrival, manifest: Manifest) -> str | None:
        """Why a batch may not be loaded; None if it may."""
        return self.why(arrival, manifest.user_id)

    def why(self, arrival: Arrival, user: str | None) -> str | None:
        """The same where the manifest itself could not be read."""
        prefix = arrival.parts.prefix
        for line in self.listed:
            if line.covers(tenant=prefix.tenant, device=prefix.device, epoch=prefix.epoch, user=user, key=arrival.key):
                return ON_SHARED_DEVICE if line.is_shared(prefix.device) else REASON
        return None


def load(store: Store) -> Suppressions:
    """The list of a store. Raises ValueError for a line that cannot be read: without it, data would come back."""
    found = []
    for entry in store.list(LISTED):
        fields = json.loads(store.get(entry.key))
        lists = {name: tuple(fields[name]) for name in ("epochs", "batches", "shared")}
        found.append(Suppression(**fields | lists))
    return Suppressions(found)


def pending(store: Store, suppressions: Suppressions) -> list[Suppression]:
    """Lines whose data was not proven to be gone."""
    done = {entry.key.removeprefix(DONE) for entry in store.list(DONE)}
    return [line for line in suppressions.listed if f"{line.request_id}.json" not in done]


def reopen(store: Store, *, finished_since: datetime) -> int:
    """Have erasures that were finished since then carried out again, because their rows may be back; how many."""
    done = [entry.key for entry in store.list(DONE) if entry.received_at >= finished_since]
    for key in done:
        store.delete(key)
    return len(done)


def record(
    store: Store, *, scope: Scope, tenant: str, subject: str, actor: str, reason: str, request_id: str | None = None,
    epochs: Iterable[str] = (), batches: Iterable[str] = (), shared: Iterable[str] = (), now: datetime | None = None,
) -> Suppression:  # fmt: skip
    """Add a line: nothing of the subject is loaded any more. A request that has a line keeps it. Raises UsageError."""
    for name, text in (("actor", actor), ("reason", reason)):
        if not text.strip() or len(text) > MAX_TEXT or not text.isprintable():
            raise UsageError(f"--{name} must be one line of at most {MAX_TEXT} characters")
        if scope != "tenant" and re.search(rf"(?<![\w-]){re.escape(subject)}(?![\w-])", text):
            raise UsageError(
                f"--{name} names whom it is about, and the list is kept for ever: say it without that name"
            )
    if not is_slug(tenant):
        raise UsageError("name the tenant: [a-z0-9][a-z0-9_-]{0,62}")
    bare = Suppression(
        request_id=request_id or secrets.token_hex(16), scope=scope, tenant=tenant, actor=actor, reason=reason,
        recorded_at=(now or datetime.now(UTC)).isoformat(), salt=secrets.token_hex(16), subject="",
    )  # fmt: skip
    digests = {
        name: tuple(sorted(bare.digest(value) for value in values))
        for name, values in (("epochs", epochs), ("batches", batches), ("shared", shared))
    }
    line = Suppression(**asdict(bare) | {"subject": tenant if scope == "tenant" else bare.digest(subject)} | digests)
    store.put(line.key, line.to_json())
    return line


@dataclass(frozen=True)
class Requests:
    """What lies in the devices' outbox: requests by key, and the keys of what is none."""

    asked: dict[str, ErasureRequest]
    unreadable: tuple[str, ...]


def requests(store: Store) -> Requests:
    """Requests of devices' owners."""
    asked: dict[str, ErasureRequest] = {}
    unreadable = []
    for entry in (*store.list(EARLIER_REQUESTS), *store.list(REQUESTS)):
        try:
            if entry.size > MAX_BYTES:
                raise ReceiptError("size")
            asked[entry.key] = parse_request(entry.key, store.get(entry.key))
        except ReceiptError:
            unreadable.append(entry.key)
    return Requests(asked, tuple(unreadable))


def record_requests(store: Store) -> Requests:
    """Add a line for every request that has none. A device can ask for itself only: its key says who it is."""
    found = requests(store)
    known = {line.request_id for line in load(store).listed}
    for request in found.asked.values():
        if request.request_id not in known:
            record(
                store, scope="device", tenant=request.tenant, subject=request.device, actor="the device's owner",
                reason="consent withdrawn", request_id=request.request_id, epochs=request.epochs,
            )  # fmt: skip
    return found
