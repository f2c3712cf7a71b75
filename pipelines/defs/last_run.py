"""Whether anything can have changed since the last run that ended well: fingerprints of what a run reads and writes.

`apiary run` asks this before it imports Dagster. Does not belong here: what a run does (the assets).
"""

import hashlib
import json
import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from pipelines import engine
from pipelines.billing import alert_messages, attestation
from pipelines.contract.keys import EARLIER_REQUESTS, REQUESTS
from pipelines.home import CODE, SOURCE, Home, replace_file
from pipelines.store import Store
from pipelines.warehouse import database, ducklake, landing, suppression

NO_CODE = frozenset({"__pycache__", "target", "logs"})
# What a run reads of a store. Presence, size and time of each object: one that was replaced or removed is a change.
PREFIXES = (landing.ROOT, REQUESTS, EARLIER_REQUESTS, suppression.ROOT)


def inputs(home: Home, store: Store, *, today: datetime) -> str:
    """A hash of everything that decides what a run makes, and of the UTC day, before the run.

    The day, because statements, their alerts, quota periods and the sample of objects that are read again go by it;
    nothing goes by a finer clock. Raises OSError, StoreUnavailableError, StoreRefusedError.
    """
    digest = hashlib.sha256()

    def add(*parts: object) -> None:
        digest.update(json.dumps(parts, default=str).encode() + b"\n")

    add("day", today.astimezone(UTC).date())
    add("settings", store.url, os.environ.get(attestation.ANCHOR))
    add("engine", engine.selected(), *(os.environ.get(name) for name in (ducklake.CATALOG, ducklake.DATA)))
    add("python", sys.version, *sorted(path.name for path in Path(sysconfig.get_path("purelib")).glob("*.dist-info")))
    signed = (path for path in _files(home.books) if "keys" not in path.relative_to(home.books).parts)
    register = home.warehouse.with_name("devices.json")
    for path in (*_code(), *signed, home.operator_actions, register):
        if path.exists():
            add("file", path, hashlib.sha256(path.read_bytes()).hexdigest())
    for prefix in PREFIXES:
        for entry in store.list(prefix):
            add("object", entry.key, entry.size, entry.received_at)
    return digest.hexdigest()


def record(home: Home, fingerprint: str, *, seconds: float) -> None:
    """Write down that a run of these inputs ended well and how long it took. Raises OSError.

    The caller holds the lock of the warehouse.
    """
    said = {
        "inputs": fingerprint, "results": _results(home), "seconds": round(seconds, 3),
        "ended_at": datetime.now(UTC).isoformat(),
    }  # fmt: skip
    replace_file(home.last_run, (json.dumps(said, indent=1) + "\n").encode())


def forget(home: Home) -> None:
    """Before a run begins: of one that fails or is killed nothing is known."""
    home.last_run.unlink(missing_ok=True)


def unchanged_since(home: Home, store: Store, fingerprint: str) -> datetime | None:
    """When the last run ended, if a run of these inputs would change nothing; else None.

    Also None if what the run made is not as it left it, an erasure waits, or a message was not delivered.
    Raises OSError, StoreUnavailableError, StoreRefusedError.
    """
    try:
        said = json.loads(home.last_run.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    if not isinstance(said, dict) or said.get("inputs") != fingerprint or said.get("results") != _results(home):
        return None
    if suppression.pending(store, suppression.load(store)) or alert_messages.undelivered(home.exports):
        return None
    return datetime.fromisoformat(said["ended_at"])


def _results(home: Home) -> str:
    """A hash of the warehouse, the publication and the exports as they lie there: names, sizes and times.

    Whoever changes the warehouse by another command, or removes a statement, makes the next run a whole one.
    """
    warehouse = (home.warehouse, home.warehouse.with_name(f"{home.warehouse.name}.wal"))
    current = home.published / "current"
    lines = [str(current.resolve())]
    if database.is_ducklake():
        with database.connect(home.warehouse) as connection:
            lines.append(f"snapshot {ducklake.snapshot(connection)}")
    for path in (*filter(Path.exists, warehouse), *_files(current.resolve()), *_files(home.exports)):
        status = path.stat()
        lines.append(f"{path} {status.st_size} {status.st_mtime_ns} {status.st_ino}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _code() -> Iterator[Path]:
    for path in _files(*CODE):
        if NO_CODE.isdisjoint(path.relative_to(SOURCE).parts):
            yield path


def _files(*folders: Path) -> Iterable[Path]:
    """Every file below, in the order of names."""
    return sorted(Path(folder, name) for root in folders for folder, _, names in os.walk(root) for name in names)
