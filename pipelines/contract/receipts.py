"""A request of a device's owner to erase what it sent, and the server's receipt that this was done: bytes and keys.

Both are objects like any other: created once, never replaced, named by their content. Only one form of their bytes is
accepted, the one that is written here; whoever reads them can tell a torn or foreign object from a true one.
Does not belong here: erasing (the warehouse), what a device makes of a receipt (device/consent.py).
"""

import hashlib
import json
import re
from dataclasses import MISSING, asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, NoReturn, TypeVar

from pipelines.contract.keys import PROTOCOL, Prefix, is_slug, request_key, request_keys

MAX_BYTES = 1 << 20  # some fifty thousand epochs; more is not one of ours and must not fill a device's memory

_RECEIPT_HEAD = {"protocol": PROTOCOL, "kind": "erasure"}
_REQUEST_HEAD = {"protocol": "x1", "request": "delete_device"}

_HEX = {length: re.compile(rf"[0-9a-f]{{{length}}}") for length in (16, 32)}
_KIND = re.compile(r"[a-z0-9_]{1,60}")


class ReceiptError(ValueError):
    """These are not the bytes of a request or a receipt. The text says which field is at fault, never its value."""


@dataclass(frozen=True, kw_only=True)
class ErasureRequest:
    """An owner asks that everything a device ever sent be erased.

    `request_id`: 32 hex digits, made once; the receipt names it.
    `epochs`: every life of the device's state so far. What the device sends after a new grant has another epoch and
    is not meant.
    `seq`: which request of this device it is, from 1. `user`, `consent_id`: as enrolled and granted when it was asked.
    """

    request_id: str
    region: str
    tenant: str
    device: str
    epochs: tuple[str, ...]
    user: str
    consent_id: str
    seq: int
    requested_at: datetime

    def __post_init__(self) -> None:
        for name in ("region", "tenant", "user"):
            _check(name, is_slug(getattr(self, name)))
        for name in ("request_id", "device", "consent_id"):
            _check(name, _HEX[32].fullmatch(getattr(self, name)))
        _check("epochs", self.epochs and all(_HEX[16].fullmatch(epoch) for epoch in self.epochs))
        _check("seq", 0 < self.seq <= 9_999_999_999)
        _check("requested_at", self.requested_at.tzinfo is not None)

    def to_json(self) -> bytes:
        """The request's bytes, the same for the same request."""
        fields = asdict(self) | {"requested_at": self.requested_at.astimezone(UTC).isoformat()}
        return _dump(_REQUEST_HEAD | fields)

    def key(self) -> str:
        """Where the request lies: under the newest epoch it names."""
        prefix = Prefix(self.region, self.tenant, self.device, self.epochs[-1])
        return request_key(prefix, self.seq, hashlib.sha256(self.to_json()).hexdigest())


@dataclass(frozen=True, kw_only=True)
class ErasureReceipt:
    """The server has erased what a request named.

    `objects_deleted`: objects of the store; `rows_deleted`: rows of the warehouse, over all tables. `findings`: what
    the proof could not search, and what others hold, as counts by kind; left out of the bytes where there is nothing to
    say, so that devices of every version read them.
    """

    request_id: str
    device: str
    epochs: tuple[str, ...]
    erased_at: datetime
    objects_deleted: int
    rows_deleted: int
    findings: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("request_id", "device"):
            _check(name, _HEX[32].fullmatch(getattr(self, name)))
        _check("epochs", all(_HEX[16].fullmatch(epoch) for epoch in self.epochs))
        _check("erased_at", self.erased_at.tzinfo is not None)
        for name in ("objects_deleted", "rows_deleted"):
            _check(name, 0 <= getattr(self, name) < 10**18)
        _check("findings", all(_KIND.fullmatch(kind) and 0 < count < 10**18 for kind, count in self.findings.items()))

    def to_json(self) -> bytes:
        """The receipt's bytes, the same for the same receipt."""
        fields = asdict(self) | {"erased_at": self.erased_at.astimezone(UTC).isoformat()}
        if not self.findings:
            del fields["findings"]
        return _dump(_RECEIPT_HEAD | fields)

    def key(self, *, region: str, tenant: str) -> str:
        """Where the receipt lies."""
        sha256 = hashlib.sha256(self.to_json()).hexdigest()
        return f"{receipts_prefix(region=region, tenant=tenant, device=self.device)}{sha256[:16]}.json"


T = TypeVar("T", ErasureRequest, ErasureReceipt)


def receipts_prefix(*, region: str, tenant: str, device: str) -> str:
    """Where the receipts for one device lie: the one place beside its budgets that its credentials may read."""
    return f"receipts/{PROTOCOL}/{region}/{tenant}/{device}/"


def parse_request(key: str, data: bytes) -> ErasureRequest:
    """The request under a key of this release or of 0.1.0. Raises ReceiptError if they are not those of one request."""
    found = _load(data, _REQUEST_HEAD)
    request = _made(ErasureRequest, found, "requested_at")
    _check("key", key in request_keys(request.key()))
    _check("form", request.to_json() == data)
    return request


def parse_receipt(key: str, data: bytes, *, region: str, tenant: str) -> ErasureReceipt:
    """The receipt under a key of a device's receipts. Raises ReceiptError if key and bytes are not those of one."""
    receipt = _made(ErasureReceipt, _load(data, _RECEIPT_HEAD), "erased_at")
    _check("key", receipt.key(region=region, tenant=tenant) == key)
    _check("form", receipt.to_json() == data)
    return receipt


def read_receipt(data: bytes | None) -> ErasureReceipt | None:
    """A receipt that was kept after it had been parsed; None if there is none. Raises ReceiptError."""
    return None if data is None else _made(ErasureReceipt, _load(data, _RECEIPT_HEAD), "erased_at")


def _made(kind: type[T], found: dict[str, Any], time: str) -> T:
    """A dataclass from the fields of JSON, each of its own type."""
    wanted = {name: field.type for name, field in kind.__dataclass_fields__.items()}
    given = {name for name, field in kind.__dataclass_fields__.items() if field.default_factory is not MISSING}
    _check("fields", set(wanted) - given <= set(found) <= set(wanted))
    for name, type_ in wanted.items():
        if name not in found:
            continue
        value = found[name]
        if type_ is int:
            _check(name, isinstance(value, int) and not isinstance(value, bool))
        elif name == "findings":
            is_count = isinstance(value, dict) and all(type(count) is int for count in value.values())
            _check(name, is_count and value)
        elif name == "epochs":
            _check(name, isinstance(value, list) and all(isinstance(item, str) for item in value))
            found[name] = tuple(value)
        else:
            _check(name, isinstance(value, str))
    try:
        found[time] = datetime.fromisoformat(found[time])
    except ValueError:
        _fail(time)
    return kind(**found)


def _load(data: bytes, head: dict[str, str]) -> dict[str, Any]:
    _check("size", len(data) <= MAX_BYTES)
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        _fail("form")
    _check("form", isinstance(found, dict))
    for name, value in head.items():
        _check(name, found.pop(name, None) == value)
    return dict(found)


def _dump(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()


def _check(field: str, holds: object) -> None:
    if not holds:
        _fail(field)


def _fail(field: str) -> NoReturn:
    raise ReceiptError(f"{field} is not that of a request or a receipt") from None
