"""What lies in the landing: finding manifests that were not loaded yet, reading a manifest and fetching its objects.

A device is not a trusted writer: a batch that does not keep to its contract is refused whole, with a reason.
Does not belong here: opening the objects (decode.py), who may send at all (registry.py), the warehouse (load.py).
"""

import hashlib
import json
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pipelines.contract.keys import PROTOCOL, RECORD_ID, SHA256, ManifestKey, is_slug, parse_manifest_key
from pipelines.contract.table import Table
from pipelines.contract.wire import BY_NAME, DEVICE_REPORTS, MAX_TOKENS
from pipelines.store import Store, TooLargeError
from pipelines.warehouse.decode import MAX_ROWS, Item, RejectedError

ROOT = f"landing/{PROTOCOL}/"
MAX_MANIFEST_BYTES = 256 << 10
MAX_OBJECT_BYTES = 64 << 20
MAX_BATCH_BYTES = 128 << 20
MAX_OBJECTS = 16
# What all rows of an object may have. What a refused batch claims stays in the ledger: more would not fit a BIGINT.
MAX_OBJECT_TOKENS = MAX_ROWS * MAX_TOKENS
_VERSION = DEVICE_REPORTS.by_name["uploader_version"].pattern


@dataclass(frozen=True)
class Arrival:
    """A manifest in the landing. `received_at` is the store's clock: the device's is only a claim."""

    key: str
    parts: ManifestKey
    received_at: datetime


@dataclass(frozen=True)
class Claim:
    """One object as its manifest names it; None where an older device says nothing."""

    table: Table
    key: str
    sha256: str
    size: int | None
    rows: int | None
    input_tokens: int | None
    output_tokens: int | None


@dataclass(frozen=True)
class Manifest:
    """What a manifest says. `lost`: rows by table that a tombstone counts instead of bringing them."""

    sha256: str
    user_id: str
    previous_sha256: str | None = None
    contract_hash: str | None = None
    consent_id: str | None = None
    uploader_version: str | None = None
    claims: tuple[Claim, ...] = ()
    tombstone: str | None = None
    lost: tuple[tuple[str, int], ...] = ()
    rows: int | None = None
    """Rows of all its objects, or those lost; also of objects nobody here knows."""


@dataclass(frozen=True)
class FetchedBatch:
    """A batch as it came: its manifest, and its objects' bytes, which nobody has opened."""

    arrival: Arrival
    manifest: Manifest
    items: tuple[Item, ...]


class RefusedError(RejectedError):
    """A batch that is refused before its objects are opened; `manifest` is what could be read of it."""

    def __init__(self, reason: str, manifest: Manifest | None = None) -> None:
        super().__init__(reason)
        self.manifest = manifest


class IncompleteError(Exception):
    """An object of a batch is not there (yet): a landing that is being copied may bring the manifest first."""


SUPPRESSED = "suppressed"  # a reason that begins so is the owner's will and no fault
AdmissionPolicy = Callable[[Arrival, Manifest], str | None]


def everybody(_arrival: Arrival, _manifest: Manifest) -> str | None:
    """The policy of a warehouse that knows no reason to refuse a sender."""
    return None


def pending(store: Store, known: Collection[str]) -> list[Arrival]:
    """Manifests that the ledger does not know, in the order of arrival."""
    found = []
    for entry in store.list(ROOT):
        if entry.key in known or (parts := parse_manifest_key(entry.key)) is None:
            continue
        found.append(Arrival(entry.key, parts, entry.received_at))
    return sorted(found, key=lambda arrival: (arrival.received_at, arrival.key))


def fetch(store: Store, arrival: Arrival, admission: AdmissionPolicy = everybody) -> FetchedBatch:
    """Read a manifest, check it, ask the admission policy, and get its objects.

    Raises RefusedError, IncompleteError, StoreUnavailableError.
    """
    try:
        manifest = read_manifest(store, arrival)
    except RefusedError as error:
        # Of somebody who was erased it may not even be told that it could not be read.
        reason = admission(arrival, error.manifest or Manifest("", ""))
        if reason is not None and reason.startswith(SUPPRESSED):
            raise RefusedError(reason, error.manifest) from None
        raise
    if (reason := admission(arrival, manifest)) is not None:
        raise RefusedError(reason, manifest)
    items: list[Item] = []
    left = MAX_BATCH_BYTES
    for claim in manifest.claims:
        try:
            data = _get(store, claim.key, min(MAX_OBJECT_BYTES, left))
        except TooLargeError:
            raise RefusedError("object_too_large", manifest) from None
        if hashlib.sha256(data).hexdigest() != claim.sha256:
            raise RefusedError("hash_mismatch", manifest)
        left -= len(data)
        if claim.size is not None and len(data) != claim.size:
            raise RefusedError("size_mismatch", manifest)
        items.append(Item(claim.table.name, data, claim.rows, claim.input_tokens, claim.output_tokens))
    return FetchedBatch(arrival, manifest, tuple(items))


def read_manifest(store: Store, arrival: Arrival) -> Manifest:
    """A manifest that agrees with its key. Raises RefusedError, IncompleteError, StoreUnavailableError."""
    try:
        data = _get(store, arrival.key, MAX_MANIFEST_BYTES)
    except TooLargeError:
        raise RefusedError("manifest_too_large") from None
    digest = hashlib.sha256(data).hexdigest()
    if digest[:16] != arrival.parts.sha16:
        raise RefusedError("manifest_hash_mismatch")
    said = _json(data)
    _agree(said, arrival)
    known = Manifest(
        digest, said["user"], _text(said, "previous_manifest_sha256", SHA256), _text(said, "contract_hash", SHA256),
        _text(said, "consent_id", RECORD_ID), _text(said, "uploader_version", _VERSION),
    )  # fmt: skip
    objects = said.get("objects")
    if not isinstance(objects, list) or len(objects) > MAX_OBJECTS or not all(isinstance(o, dict) for o in objects):
        raise RefusedError("bad_objects", known)
    rows = [item["rows"] for item in objects if _is_count(item.get("rows"), MAX_ROWS)]
    known = replace(known, rows=sum(rows) if len(rows) == len(objects) else None)
    try:
        tombstone, lost = _tombstone(said, objects)
        claims = tuple(_claim(item, arrival) for item in objects)
        if len({claim.table.name for claim in claims}) < len(claims):
            raise RefusedError("bad_objects")
    except RefusedError as error:
        raise RefusedError(str(error), known) from None
    if tombstone is not None:
        return replace(known, tombstone=tombstone, lost=lost, rows=sum(count for _, count in lost))
    return replace(known, claims=claims)


def _get(store: Store, key: str, limit: int) -> bytes:
    try:
        return store.get(key, limit=limit)
    except KeyError:
        raise IncompleteError(key) from None


def _json(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise RefusedError("bad_manifest") from None
    if not isinstance(found, dict) or found.get("protocol") != PROTOCOL:
        raise RefusedError("bad_manifest")
    return found


def _agree(said: dict[str, Any], arrival: Arrival) -> None:
    """What the manifest says of itself must be what its key says: the key is what credentials are bound to."""
    prefix = arrival.parts.prefix
    expected = {
        "region": prefix.region, "tenant": prefix.tenant, "device": prefix.device, "epoch": prefix.epoch,
        "seq": arrival.parts.seq,
    }  # fmt: skip
    for name, value in expected.items():
        if said.get(name) != value:
            raise RefusedError(f"{name}_mismatch")
    user = said.get("user")
    if not isinstance(user, str) or not is_slug(user):
        raise RefusedError("bad_user")


def _text(said: dict[str, Any], name: str, pattern: str) -> str | None:
    """A text of the manifest that has a form; the ledger must not take down what a device likes to write."""
    found = said.get(name)
    if found is None or found == "":
        return None
    if not isinstance(found, str) or re.fullmatch(pattern, found, re.ASCII) is None:
        raise RefusedError("bad_manifest")
    return found


def _is_count(value: object, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


def _count(item: dict[str, Any], name: str, most: int) -> int | None:
    found = item.get(name)
    if found is not None and not _is_count(found, most):
        raise RefusedError("bad_objects")
    return found


def _claim(item: dict[str, Any], arrival: Arrival) -> Claim:
    name, digest, key = item.get("table"), item.get("sha256"), item.get("key")
    table = BY_NAME.get(name) if isinstance(name, str) else None
    if table is None or item.get("schema") != table.schema_id:
        raise RefusedError("unknown_schema")
    # The digest is part of the key: with `..` or a NUL in it the store would be asked for what is no object.
    if not isinstance(digest, str) or re.fullmatch(SHA256, digest) is None:
        raise RefusedError("bad_key")
    if not isinstance(key, str) or key != arrival.parts.prefix.data(arrival.parts.seq, table.name, digest):
        raise RefusedError("bad_key")
    return Claim(
        table, key, digest, _count(item, "bytes", MAX_BATCH_BYTES), _count(item, "rows", MAX_ROWS),
        _count(item, "input_tokens", MAX_OBJECT_TOKENS), _count(item, "output_tokens", MAX_OBJECT_TOKENS),
    )  # fmt: skip


def _tombstone(said: dict[str, Any], objects: list[Any]) -> tuple[str | None, tuple[tuple[str, int], ...]]:
    """Why a device could not send what stood here, and the rows by table that are lost."""
    found = said.get("tombstone")
    if found is None:
        return None, ()
    if objects or not isinstance(found, dict) or not isinstance(found.get("reason"), str):
        raise RefusedError("bad_tombstone")
    rows = found.get("rows") or {}
    if not isinstance(rows, dict) or not all(_is_count(count, MAX_ROWS) for count in rows.values()):
        raise RefusedError("bad_tombstone")
    if not rows.keys() <= BY_NAME.keys():
        raise RefusedError("unknown_schema")
    reason = "dropped_when_full" if found["reason"] == "dropped_when_full" else "refused_by_store"
    return reason, tuple(sorted(rows.items()))
