"""What lies in the landing: finding manifests that were not loaded yet, reading and checking one batch.

A device is not a trusted writer: a batch that does not keep to its contract is refused whole, with a reason.
Does not belong here: writing to the warehouse (load.py).
"""

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.contract.keys import PROTOCOL, ManifestKey, is_generated, is_keyed, is_slug, parse_manifest_key
from pipelines.contract.table import Column, Keep, Table
from pipelines.contract.vocabulary import is_public
from pipelines.contract.wire import BY_NAME
from pipelines.store import Store

ROOT = f"landing/{PROTOCOL}/"
MAX_MANIFEST_BYTES = 256 << 10
MAX_OBJECT_BYTES = 64 << 20
MAX_OBJECTS = 16
MAX_ROWS = 100_000  # twice what a device cuts


@dataclass(frozen=True)
class Arrival:
    """A manifest in the landing. `received_at` is the store's clock: the device's is only a claim."""

    key: str
    parts: ManifestKey
    received_at: datetime


@dataclass(frozen=True)
class Batch:
    """A batch that keeps to its contract: its rows by table."""

    arrival: Arrival
    manifest_sha256: str
    user_id: str
    tables: dict[str, pa.Table]


class RejectedError(Exception):
    """A batch that may not be loaded; the text is the reason, and holds no value of the batch."""


def pending(store: Store, known: Collection[str], *, day: date | None = None) -> list[Arrival]:
    """Manifests that the ledger does not know, in the order of arrival; of one arrival day, if one is named."""
    found = []
    for entry in store.list(ROOT):
        parts = parse_manifest_key(entry.key)
        if parts is None or entry.key in known or (day and entry.received_at.date() != day):
            continue
        found.append(Arrival(entry.key, parts, entry.received_at))
    return sorted(found, key=lambda arrival: (arrival.received_at, arrival.key))


def read(store: Store, arrival: Arrival) -> Batch:
    """Read one batch and check all of it. Raises RejectedError, StoreUnavailableError."""
    data = _get(store, arrival.key, "missing_manifest")
    if len(data) > MAX_MANIFEST_BYTES:
        raise RejectedError("manifest_too_large")
    digest = hashlib.sha256(data).hexdigest()
    if digest[:16] != arrival.parts.sha16:
        raise RejectedError("manifest_hash_mismatch")
    manifest = _manifest(data)
    _agree(manifest, arrival)
    objects = manifest.get("objects")
    if not isinstance(objects, list) or len(objects) > MAX_OBJECTS or not all(isinstance(o, dict) for o in objects):
        raise RejectedError("bad_objects")
    tables: dict[str, pa.Table] = {}
    for item in objects:
        name = item.get("table")
        if name in tables:
            raise RejectedError("bad_objects")
        tables[str(name)] = _rows(store, item, arrival)
    return Batch(arrival, digest, str(manifest["user"]), tables)


def _get(store: Store, key: str, reason: str) -> bytes:
    try:
        return store.get(key)
    except KeyError:
        raise RejectedError(reason) from None


def _manifest(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise RejectedError("bad_manifest") from None
    if not isinstance(found, dict) or found.get("protocol") != PROTOCOL:
        raise RejectedError("bad_manifest")
    return found


def _agree(manifest: dict[str, Any], arrival: Arrival) -> None:
    """What the manifest says of itself must be what its key says: the key is what credentials are bound to."""
    prefix = arrival.parts.prefix
    expected = {
        "region": prefix.region, "tenant": prefix.tenant, "device": prefix.device, "epoch": prefix.epoch,
        "seq": arrival.parts.seq,
    }  # fmt: skip
    for name, value in expected.items():
        if manifest.get(name) != value:
            raise RejectedError(f"{name}_mismatch")
    user = manifest.get("user")
    if not isinstance(user, str) or not is_slug(user):
        raise RejectedError("bad_user")


def _rows(store: Store, item: dict[str, Any], arrival: Arrival) -> pa.Table:
    name, digest, key = item.get("table"), item.get("sha256"), item.get("key")
    table = BY_NAME.get(name) if isinstance(name, str) else None
    if table is None or item.get("schema") != table.schema_id:
        raise RejectedError("unknown_schema")
    if not isinstance(digest, str) or key != arrival.parts.prefix.data(arrival.parts.seq, table.name, digest):
        raise RejectedError("bad_key")
    data = _get(store, key, "missing_object")
    if len(data) > MAX_OBJECT_BYTES:
        raise RejectedError("object_too_large")
    if hashlib.sha256(data).hexdigest() != digest:
        raise RejectedError("hash_mismatch")
    return _decode(data, table)


def _decode(data: bytes, table: Table) -> pa.Table:
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        if file.metadata.num_rows > MAX_ROWS:
            raise RejectedError("too_many_rows")
        if file.schema_arrow.names != table.arrow.names:
            raise RejectedError("unknown_columns")
        rows = file.read()
        if any(found.type != wanted.type for found, wanted in zip(rows.schema, table.arrow, strict=True)):
            raise RejectedError("wrong_types")
    except (pa.ArrowException, OSError):
        raise RejectedError("unreadable_object") from None
    _check_values(rows, table)
    return rows.cast(table.arrow)


def _check_values(rows: pa.Table, table: Table) -> None:
    """The value rules of the contract, once more: what a sound device cannot send, no device may."""
    for column in table.columns:
        values = rows.column(column.name)
        if column.required and values.null_count:
            raise RejectedError(f"null_value:{column.name}")
        if column.type in ("int64", "double", "decimal") and len(values):
            bounds = pc.min_max(values).as_py()
            low, high = bounds["min"], bounds["max"]
            if low is None:
                continue
            if (column.minimum is not None and low < column.minimum) or (
                column.maximum is not None and high > column.maximum
            ):
                raise RejectedError(f"out_of_range:{column.name}")
        if column.type == "string" and not all(_fits(column, value) for value in pc.unique(values).to_pylist()):
            raise RejectedError(f"bad_value:{column.name}")


def _fits(column: Column, value: str | None) -> bool:
    """Whether a string is one that redaction can give: a listed value, a public name, a generated id, a keyed hash."""
    if value is None:
        return True
    if column.keep in (Keep.KEYED_HASH, Keep.ID):
        return (
            is_keyed(value)
            or (bool(column.vocabulary) and is_public(column.vocabulary, value))
            or (column.keep is Keep.ID and is_generated(value))
            or bool(column.pattern and column.regex.fullmatch(value))
        )
    return value in column.values if column.values else column.regex.fullmatch(value) is not None
