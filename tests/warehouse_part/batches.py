"""Batches as a device seals them, and as a forger would: every part can be replaced.

Does not belong here: what becomes of them (test_*.py).
"""

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.contract.keys import Prefix, parse_manifest_key
from pipelines.contract.table import Column, Keep, Table
from pipelines.contract.wire import BY_NAME
from pipelines.store import Entry, Put, TooLargeError
from pipelines.warehouse import decode, landing, load
from pipelines.warehouse.landing import Arrival

Row = dict[str, Any]
START = datetime(2026, 3, 1, 12, tzinfo=UTC)
LAPTOP, CLONE, SERVER = "a" * 32, "b" * 32, "c" * 32
EPOCH = "e" * 16


class MemoryStore:
    """A store whose clock the test sets."""

    url = "memory:"
    connections = 1

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.received: dict[str, datetime] = {}
        self.passed_over: dict[str, str] = {}

    def put(self, key: str, data: bytes) -> Put:
        existed = key in self.objects
        self.objects.setdefault(key, data)
        self.received.setdefault(key, START)
        return Put.EXISTED if existed else Put.CREATED

    def get(self, key: str, *, limit: int | None = None) -> bytes:
        if limit is not None and len(self.objects[key]) > limit:
            raise TooLargeError(key)
        return self.objects[key]

    def delete(self, key: str) -> None:
        self.objects.pop(key, None)

    def list(self, prefix: str) -> Iterator[Entry]:
        for key in sorted(self.objects):
            if key.startswith(prefix):
                yield Entry(key, len(self.objects[key]), self.received[key])


def record(number: object) -> str:
    """A record id."""
    return hashlib.sha256(str(number).encode()).hexdigest()[:32]


def fitting(column: Column) -> Any:
    """A value that the column may hold."""
    match column.type:
        case "string":
            if column.values:
                return column.values[0]
            if column.is_zone:
                return "Europe/Berlin"
            texts = (record(column.name), f"k1_{record(column.name)}", "ada", "1.0.0")
            is_name = column.keep in (Keep.KEYED_HASH, Keep.ID)
            return texts[1] if is_name else next(text for text in texts if column.regex.fullmatch(text))
        case "int64":
            return max(1, column.minimum or 0)
        case "bool":
            return True
        case "double":
            return 1.5
        case "timestamp":
            return START
        case "decimal":
            return Decimal("0.25")


def row(table: str, number: object = 0, /, **given: Any) -> Row:
    """A row with a value in every column, whose sums are right; not one that a later observation could supersede."""
    filled = {column.name: fitting(column) for column in BY_NAME[table].columns}
    filled |= dict.fromkeys(name for name in BY_NAME[table].superseded_by if name.startswith("is_"))
    filled |= {rule.other: rule.values[0] for rule in BY_NAME[table].rules}
    filled |= {"record_id": record(f"{table} {number}")} | given
    return filled | {total: sum(filled[part] or 0 for part in parts) for total, parts in BY_NAME[table].sums} | given


def turn(number: object = 0, /, **given: Any) -> Row:
    """A turn of a session that is named by the number."""
    return row("llm_turns", number, **{"session_id": record(f"session of {number}"), **given})


def parquet(frame: pa.Table, **options: Any) -> bytes:
    """The bytes of a Parquet file, written as the device writes them."""
    sink = io.BytesIO()
    pq.write_table(frame, sink, **{"compression": "zstd", "store_schema": False, **options})
    return sink.getvalue()


def frame(table: str | Table, rows: Sequence[Row]) -> pa.Table:
    """Rows with the types of the contract, NULL allowed everywhere."""
    found = BY_NAME[table] if isinstance(table, str) else table
    return pa.Table.from_pylist(list(rows), schema=pa.schema([pa.field(f.name, f.type) for f in found.arrow]))


def batch(
    store: MemoryStore,
    tables: Mapping[str, Sequence[Row] | bytes],
    *,
    tenant: str = "acme",
    device: str = LAPTOP,
    seq: int = 1,
    minute: float = 0,
    change: Callable[[Row], object] = lambda manifest: None,
    data: Callable[[bytes], bytes] = lambda manifest: manifest,
) -> Arrival:
    """Put a batch into the store. `change` may spoil its manifest, `data` its bytes; the key stays true to both."""
    prefix = Prefix("eu", tenant, device, EPOCH)
    objects = []
    for name, content in tables.items():
        body = content if isinstance(content, bytes) else parquet(frame(name, content))
        digest = hashlib.sha256(body).hexdigest()
        key = prefix.data(seq, name, digest)
        store.put(key, body)
        rows = {} if isinstance(content, bytes) else {"rows": len(content)}
        item = {"key": key, "table": name, "schema": f"{name}/1", "sha256": digest, "bytes": len(body)}
        objects.append(item | rows)
    manifest = {
        "protocol": "v1", "region": "eu", "tenant": tenant, "device": device, "epoch": EPOCH, "seq": seq, "user": "ada",
        "objects": objects,
    }  # fmt: skip
    change(manifest)
    body = data(json.dumps(manifest).encode())
    return arrive(store, prefix.manifest(seq, hashlib.sha256(body).hexdigest()), body, minute=minute)


def arrive(store: MemoryStore, key: str, body: bytes, *, minute: float = 0) -> Arrival:
    """Put a manifest under a key."""
    parts = parse_manifest_key(key)
    assert parts is not None, key
    store.put(key, body)
    store.received[key] = START + timedelta(minutes=minute)
    return Arrival(key, parts, store.received[key])


def read(store: MemoryStore, arrival: Arrival) -> dict[str, pa.Table]:
    """A batch's rows by table, opened in this process. Raises RejectedError with the reason, IncompleteError."""
    decoded = decode.decode([landing.fetch(store, arrival).items])
    if decoded.reasons:
        raise decode.RejectedError(decoded.reasons[0])
    return decoded.tables


def wire() -> duckdb.DuckDBPyConnection:
    """A warehouse in memory."""
    connection = duckdb.connect(":memory:")
    load.prepare(connection)
    return connection
