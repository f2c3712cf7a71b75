"""How long things are kept, by `policies/retention.yml`: what is past its time goes, and a receipt says what went.

Does not belong here: what somebody asked to be erased (erase.py), Dagster's own runs (defs/retention.py).
"""

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import yaml

from pipelines.contract.keys import parse_manifest_key, parse_prefix
from pipelines.contract.numbers import pluralize
from pipelines.errors import UsageError
from pipelines.home import ROOT
from pipelines.store import Entry, Store
from pipelines.warehouse import landing, load

POLICY = ROOT / "policies" / "retention.yml"
LAYERS = ("landing", "quarantine", "orphans", "wire_detail", "published", "dagster")
EXEMPT = ("wire", "exports", "books")
# Tables that no bill reads, and the time by which their rows are old.
DETAIL = ("node_details", "status_events", "triggers", "source_files", "device_reports")
# The last report in each time zone of a device that had several: without it the local times of what it sent before
# would be resolved in another zone, on another day.
ZONE_CHANGES = """
    SELECT record_id FROM (
        SELECT record_id, timezone,
            lead(timezone) OVER (
                PARTITION BY tenant_id, _device_id ORDER BY _received_at, started_at, record_id
            ) AS next_timezone,
            count(DISTINCT timezone) OVER (PARTITION BY tenant_id, _device_id) AS zones
        FROM wire.device_reports WHERE timezone IS NOT NULL
    ) WHERE zones > 1 AND next_timezone IS DISTINCT FROM timezone
"""
_SEQ = re.compile(r".*/[dm]/(\d{10})-[^/]*")


@dataclass(frozen=True)
class Policy:
    """Days by layer, None for ever; days after which an orphan is reported; and why some layers are exempt."""

    keep_days: dict[str, int | None]
    report_days: int
    exempt: dict[str, str]


@dataclass(frozen=True)
class Line:
    """What a retention took from one layer, or would take; `note` says what a reader should know."""

    layer: str
    rows: int = 0
    objects: int = 0
    bytes: int = 0
    note: str = ""


def load_policy(path: Path = POLICY) -> Policy:
    """The settings. Raises UsageError for what is none: guessing here would delete."""
    try:
        found: dict[str, Any] = yaml.safe_load(path.read_text("utf-8"))
        layers, exempt = found["layers"], found["exempt"]
        days = {name: layers[name]["keep_days"] for name in LAYERS}
        report = layers["orphans"]["report_days"]
        reasons = [layer["why"] for layer in layers.values()] + list(exempt.values())
    except (KeyError, TypeError, AttributeError, yaml.YAMLError):
        raise UsageError(
            f"{path}: name layers with keep_days and why, orphans with report_days, and what is exempt"
        ) from None
    if set(layers) != set(LAYERS) or set(exempt) != set(EXEMPT) or not all(isinstance(r, str) and r for r in reasons):
        raise UsageError(
            f"{path}: the layers are {', '.join(LAYERS)}; exempt are {', '.join(EXEMPT)}; each has a reason"
        )
    numbers = [*(value for value in days.values() if value is not None), report]
    if not all(isinstance(value, int) and not isinstance(value, bool) and value >= 1 for value in numbers):
        raise UsageError(f"{path}: days are whole numbers from 1, or null")
    if days["orphans"] is not None and days["orphans"] < report:
        raise UsageError(f"{path}: an orphan is reported before it goes: keep_days must not be below report_days")
    return Policy(days, report, dict(exempt))


def apply(warehouse: Path, published: Path, store: Store, policy: Policy, *, now: datetime, is_dry: bool) -> list[Line]:
    """Take what is past its time, or say what would be taken. Raises StoreUnavailableError, OSError, duckdb.Error."""
    statuses = _statuses(warehouse)
    entries = [entry for entry in store.list(landing.ROOT) if parse_prefix(entry.key)]
    orphans, waiting = _orphans(policy, entries, now)
    expired = {
        "landing": _old_batches(before(policy, "landing", now), entries, statuses, {"loaded", "tombstone"}),
        "quarantine": _old_batches(before(policy, "quarantine", now), entries, statuses, {"quarantined"}),
        "orphans": orphans,
    }
    age = pluralize(policy.report_days, "day")
    notes = {"orphans": f"{waiting} unreferenced for more than {age}" if waiting else ""}
    lines = []
    for layer, found in expired.items():
        if not is_dry:
            _forget_objects(warehouse, found)
            for entry in found:
                store.delete(entry.key)
        note = notes.get(layer) or ("kept for ever" if policy.keep_days[layer] is None else "")
        lines.append(Line(layer, 0, len(found), sum(entry.size for entry in found), note))
    lines.append(_take_rows(warehouse, policy, now, is_dry=is_dry))
    lines.append(_take_versions(published, policy, now, is_dry=is_dry))
    return lines + [Line(name, note=f"exempt: {why}") for name, why in policy.exempt.items()]


def before(policy: Policy, layer: str, now: datetime) -> datetime | None:
    """What is older than this is past its time; None if nothing ever is."""
    days = policy.keep_days[layer]
    return None if days is None else now - timedelta(days=days)


def _statuses(warehouse: Path) -> dict[str, str]:
    if not warehouse.exists():
        return {}
    with duckdb.connect(str(warehouse)) as connection:
        load.prepare(connection)
        return dict(connection.execute("SELECT manifest_key, status FROM wire.batches").fetchall())


def _place(key: str) -> tuple[str, str] | None:
    """The epoch's folder and the place in its chain of an object."""
    prefix, match = parse_prefix(key), _SEQ.fullmatch(key)
    return (prefix.path, match[1]) if prefix and match else None


def _old_batches(
    limit: datetime | None, entries: list[Entry], statuses: dict[str, str], taken: set[str]
) -> list[Entry]:
    """Objects of batches that the ledger has answered, data before manifests; the answers stay."""
    if limit is None:
        return []
    places: dict[tuple[str, str] | None, list[Entry]] = {}
    for entry in entries:
        if parse_manifest_key(entry.key):
            places.setdefault(_place(entry.key), []).append(entry)
    # Two manifests of one place may share its objects: they go together or not at all.
    old = {
        place
        for place, found in places.items()
        if all(entry.received_at < limit and statuses.get(entry.key) in taken for entry in found)
    }
    expired = [entry for entry in entries if _place(entry.key) in old]
    return sorted(expired, key=lambda entry: (parse_manifest_key(entry.key) is not None, entry.key))


def _orphans(policy: Policy, entries: list[Entry], now: datetime) -> tuple[list[Entry], int]:
    """Objects in whose place of the chain no manifest stands: those past their time, and how many more are old."""
    named = {_place(entry.key) for entry in entries if parse_manifest_key(entry.key)}
    shown = now - timedelta(days=policy.report_days)
    found = [entry for entry in entries if _place(entry.key) not in named and entry.received_at < shown]
    limit = before(policy, "orphans", now)
    expired = [entry for entry in found if limit is not None and entry.received_at < limit]
    return expired, len(found) - len(expired)


def _forget_objects(warehouse: Path, expired: list[Entry]) -> None:
    """The ledger looks no more for what is let go (verify.py would miss it); what the manifests claimed stays."""
    if not expired or not warehouse.exists():
        return
    with duckdb.connect(str(warehouse)) as connection:
        connection.execute(
            "UPDATE wire.batch_objects SET object_key = NULL WHERE object_key IN (SELECT unnest(?))",
            [[entry.key for entry in expired]],
        )


def _take_rows(warehouse: Path, policy: Policy, now: datetime, *, is_dry: bool) -> Line:
    limit = before(policy, "wire_detail", now)
    if limit is None or not warehouse.exists():
        return Line("wire_detail", note="kept for ever" if limit is None else "")
    rows = 0
    with duckdb.connect(str(warehouse)) as connection:
        load.prepare(connection)
        connection.execute("BEGIN")
        for table in DETAIL:
            old = "_received_at < ?" + (f" AND record_id NOT IN ({ZONE_CHANGES})" if table == "device_reports" else "")
            found = connection.execute(f"SELECT count(*) FROM wire.{table} WHERE {old}", [limit]).fetchone()
            rows += int(found[0]) if found else 0
            if not is_dry:
                connection.execute(f"DELETE FROM wire.{table} WHERE {old}", [limit])
        connection.execute("COMMIT")
    return Line("wire_detail", rows)


def _take_versions(published: Path, policy: Policy, now: datetime, *, is_dry: bool) -> Line:
    limit = before(policy, "published", now)
    current = (published / "current").resolve()
    if limit is None or not current.exists():
        return Line("published", note="kept for ever" if limit is None else "")
    old = [path for path in _folders(published / "versions") if path != current and _changed_at(path) < limit]
    files = [path for folder in old for path in folder.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    for folder in old if not is_dry else ():
        shutil.rmtree(folder)
    return Line("published", 0, len(files), size)


def _folders(path: Path) -> Iterator[Path]:
    return (folder for folder in sorted(path.iterdir()) if folder.is_dir()) if path.is_dir() else iter(())


def _changed_at(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)
