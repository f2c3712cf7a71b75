"""What lies in the landing: finding manifests that were not loaded yet, reading and checking one batch.

A device is not a trusted writer: a batch that does not keep to its contract is refused whole, with a reason.
Does not belong here: writing to the warehouse (load.py).
"""

import hashlib
import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.contract.keys import PROTOCOL, SHA256, ManifestKey, is_generated, is_keyed, is_slug, parse_manifest_key
from pipelines.contract.table import Column, Keep, Table
from pipelines.contract.vocabulary import is_public
from pipelines.contract.wire import BY_NAME
from pipelines.store import Store

ROOT = f"landing/{PROTOCOL}/"
MAX_MANIFEST_BYTES = 256 << 10
MAX_OBJECT_BYTES = 64 << 20
MAX_UNPACKED_BYTES = 256 << 20
MAX_OBJECTS = 16
MAX_ROWS = 100_000  # twice what a device cuts
# Outside these years an instant breaks the calendars of what reads the wire. A file may well be dated 1970.
TIMES = (datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC))


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
    tombstone: str | None = None
    """Why the device could not send what stood here; its rows are lost, and counted."""


class RejectedError(Exception):
    """A batch that may not be loaded; the text is the reason, and holds no value of the batch."""


class IncompleteError(Exception):
    """An object of a batch is not there (yet): a landing that is being copied may bring the manifest first."""


def pending(store: Store, known: Collection[str]) -> list[Arrival]:
    """Manifests that the ledger does not know, in the order of arrival."""
    found = []
    for entry in store.list(ROOT):
        parts = parse_manifest_key(entry.key)
        if parts is None or entry.key in known:
            continue
        found.append(Arrival(entry.key, parts, entry.received_at))
    return sorted(found, key=lambda arrival: (arrival.received_at, arrival.key))


def read(store: Store, arrival: Arrival) -> Batch:
    """Read one batch and check all of it. Raises RejectedError, IncompleteError, StoreUnavailableError."""
    data = _get(store, arrival.key)
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
        table, rows = _rows(store, item, arrival)
        if table.name in tables:
            raise RejectedError("bad_objects")
        tables[table.name] = rows
    return Batch(arrival, digest, str(manifest["user"]), tables, _tombstone(manifest, objects))


def _tombstone(manifest: dict[str, Any], objects: list[Any]) -> str | None:
    found = manifest.get("tombstone")
    if found is None:
        return None
    if objects or not isinstance(found, dict) or not isinstance(found.get("reason"), str):
        raise RejectedError("bad_tombstone")
    return "dropped_when_full" if found["reason"] == "dropped_when_full" else "refused_by_store"


def _get(store: Store, key: str) -> bytes:
    try:
        return store.get(key)
    except KeyError:
        raise IncompleteError(key) from None


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


def _rows(store: Store, item: dict[str, Any], arrival: Arrival) -> tuple[Table, pa.Table]:
    name, digest, key = item.get("table"), item.get("sha256"), item.get("key")
    table = BY_NAME.get(name) if isinstance(name, str) else None
    if table is None or item.get("schema") != table.schema_id:
        raise RejectedError("unknown_schema")
    # The digest is part of the key: with `..` or a NUL in it the store would be asked for what is no object.
    if not isinstance(digest, str) or re.fullmatch(SHA256, digest) is None:
        raise RejectedError("bad_key")
    if key != arrival.parts.prefix.data(arrival.parts.seq, table.name, digest):
        raise RejectedError("bad_key")
    data = _get(store, key)
    if len(data) > MAX_OBJECT_BYTES:
        raise RejectedError("object_too_large")
    if hashlib.sha256(data).hexdigest() != digest:
        raise RejectedError("hash_mismatch")
    return table, _decode(data, table)


def _decode(data: bytes, table: Table) -> pa.Table:
    try:
        footer = pq.read_metadata(pa.BufferReader(data))
        groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
        if max(footer.num_rows, sum(group.num_rows for group in groups)) > MAX_ROWS:
            raise RejectedError("too_many_rows")
        if sum(group.total_byte_size for group in groups) > MAX_UNPACKED_BYTES:
            raise RejectedError("object_too_large")
        schema = footer.schema.to_arrow_schema()
        columns = [c for c in table.columns if not c.is_addition or c.name in schema.names]
        if schema.names != [column.name for column in columns]:
            raise RejectedError("unknown_columns")
        if schema.types != [table.arrow.field(column.name).type for column in columns]:
            raise RejectedError("wrong_types")
        # Texts stay dictionaries until they were checked: one long text that every row names would fill the memory.
        texts = [column.name for column in columns if column.type == "string"]
        file = pq.ParquetFile(pa.BufferReader(data), metadata=footer, read_dictionary=texts)
        rows = file.read(use_threads=False)  # most batches are small: handing them to threads takes longer
        rows.validate(full=True)  # a text that is no UTF-8 would break whoever looks at it
    except (pa.ArrowException, ValueError, OSError):
        raise RejectedError("unreadable_object") from None
    _check_values(rows, columns)
    for place, column in enumerate(table.columns):
        if column not in columns:
            field = table.arrow.field(column.name)
            rows = rows.add_column(place, field, pa.nulls(rows.num_rows, field.type))
    return rows.cast(table.arrow)


def _check_values(rows: pa.Table, columns: Sequence[Column]) -> None:
    """The value rules of the contract, once more: what a sound device cannot send, no device may."""
    for column in columns:
        values = rows.column(column.name)
        if column.required and values.null_count:
            raise RejectedError(f"null_value:{column.name}")
        if column.type == "string":
            found = {value for chunk in values.chunks for value in chunk.dictionary.to_pylist()}
            if not all(_fits(column, value) for value in found):
                raise RejectedError(f"bad_value:{column.name}")
        elif column.type != "bool" and _is_outside(column, values):
            raise RejectedError(f"out_of_range:{column.name}")


def _is_outside(column: Column, values: pa.ChunkedArray) -> bool:
    """Whether a number or a time is out of its bounds."""
    if column.type == "double" and pc.any(pc.is_nan(values)).as_py():
        return True  # the least and the greatest pass over it
    lowest: int | None = column.minimum
    highest: int | None = column.maximum
    if column.type == "timestamp":
        values = values.cast(pa.int64())  # the extremes are no times in Python
        lowest, highest = (int(time.timestamp()) * 1_000_000 for time in TIMES)
    bounds = pc.min_max(values).as_py()
    low, high = bounds["min"], bounds["max"]
    if low is None:
        return False
    if column.type == "decimal" and low == 0:
        return True  # unreported is NULL; one cost of 0 would keep everybody's data behind the gate
    return (lowest is not None and low < lowest) or (highest is not None and high > highest)


def _fits(column: Column, value: str) -> bool:
    """Whether a string is one that redaction can give: a listed value, a public name, a generated id, a keyed hash."""
    if column.keep in (Keep.KEYED_HASH, Keep.ID):
        return (
            is_keyed(value)
            or (bool(column.vocabulary) and is_public(column.vocabulary, value))
            or (column.keep is Keep.ID and is_generated(value))
            or bool(column.pattern and column.regex.fullmatch(value))
        )
    return value in column.values if column.values else column.regex.fullmatch(value) is not None
