"""Whether the landing still holds what was loaded: presence, size and time of every object, the bytes of some or all.

A store that cannot keep a device from overwriting its objects can at least not hide it: the ledger has their hashes.
Does not belong here: judging what arrives (landing.py), alarms (expectations/).
"""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import duckdb
import pyarrow as pa

from pipelines.store import Entry, Store, TooLargeError
from pipelines.warehouse.landing import MAX_OBJECT_BYTES, ROOT

SAMPLE = 500  # objects whose bytes a run looks at: some seconds, and within weeks every object


@dataclass(frozen=True)
class Finding:
    """An object that is not what the ledger knows."""

    object_key: str
    manifest_key: str
    tenant_id: str
    finding: str
    expected_sha256: str
    found_sha256: str | None


@dataclass(frozen=True)
class Verified:
    """How many objects were looked at, of how many the bytes were read, and what was found."""

    objects: int
    read: int
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class _Known:
    key: str
    manifest: str
    tenant: str
    sha256: str
    size: int | None
    received_at: datetime | None


def verify(
    connection: duckdb.DuckDBPyConnection, store: Store, *, sample: int | None = None, seed: int | None = None
) -> Verified:
    """Compare the landing with the ledger and write down what differs; a finding stays until the object is as it was.

    The bytes are read of `sample` objects, of all if None, and of every object whose size or time is another one.
    Raises StoreUnavailableError, StoreRefusedError.
    """
    there = {entry.key: entry for entry in store.list(ROOT)}
    known = _known(connection)
    chosen = set(range(len(known)))
    if sample is not None and sample < len(known):
        chosen = set(random.Random(seed).sample(range(len(known)), sample))  # noqa: S311 - no secret
    findings, read = [], 0
    for number, item in enumerate(known):
        entry = there.get(item.key)
        is_odd = entry is not None and _is_odd(item, entry)
        digest = None
        if entry is not None and (is_odd or number in chosen):
            read += 1
            digest = _digest(store, item.key)
        finding = _finding(item, entry, digest, is_odd=is_odd)
        if finding is not None:
            findings.append(Finding(item.key, item.manifest, item.tenant, finding, item.sha256, digest))
    _write(connection, findings, [item.key for number, item in enumerate(known) if number in chosen])
    return Verified(len(known), read, tuple(findings))


def _known(connection: duckdb.DuckDBPyConnection) -> list[_Known]:
    rows = connection.execute(
        """
        SELECT manifest_key, manifest_key, tenant_id, manifest_sha256, NULL, received_at
        FROM wire.batches WHERE status IN ('loaded', 'tombstone')
        UNION ALL
        SELECT objects.object_key, manifest_key, objects.tenant_id, objects.sha256, objects.bytes, NULL
        FROM wire.batch_objects AS objects JOIN wire.batches USING (manifest_key)
        WHERE batches.status = 'loaded' AND objects.object_key IS NOT NULL
        ORDER BY 1
        """
    ).fetchall()
    return [_Known(*row) for row in rows]


def _is_odd(item: _Known, entry: Entry) -> bool:
    is_later = item.received_at is not None and entry.received_at != item.received_at
    return is_later or (item.size is not None and entry.size != item.size)


def _finding(item: _Known, entry: Entry | None, digest: str | None, *, is_odd: bool) -> str | None:
    if entry is None:
        return "missing"
    if digest is not None and digest != item.sha256:
        return "changed"
    return "written_again" if is_odd else None


def _digest(store: Store, key: str) -> str:
    try:
        return hashlib.sha256(store.get(key, limit=MAX_OBJECT_BYTES)).hexdigest()
    except TooLargeError:
        return "too_large"
    except KeyError:
        return "gone"  # between the listing and now


def _write(connection: duckdb.DuckDBPyConnection, findings: Sequence[Finding], looked_at: Sequence[str]) -> None:
    rows = pa.Table.from_pylist([vars(finding) for finding in findings], schema=SCHEMA)
    connection.register("found", rows)
    connection.register("looked_at", pa.table({"object_key": pa.array(looked_at, pa.string())}))
    connection.execute("BEGIN")
    try:
        connection.execute(
            """
            DELETE FROM wire.object_findings AS old
            WHERE old.object_key IN (SELECT object_key FROM looked_at)
                AND NOT EXISTS (
                    SELECT 1 FROM found WHERE found.object_key = old.object_key AND found.finding = old.finding
                )
            """
        )
        connection.execute(
            """
            INSERT INTO wire.object_findings BY NAME
            SELECT found.*, $now AS found_at FROM found
            ANTI JOIN wire.object_findings AS old
                ON found.object_key = old.object_key AND found.finding = old.finding
            """,
            {"now": datetime.now(UTC)},
        )
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    finally:
        connection.unregister("found")
        connection.unregister("looked_at")


SCHEMA = pa.schema([
    (name, pa.string())
    for name in ("object_key", "manifest_key", "tenant_id", "finding", "expected_sha256", "found_sha256")
])  # fmt: skip
