"""Batches that were refused: which, why, since when; and having them judged again.

Does not belong here: judging (decode.py, landing.py, registry.py), loading (load.py).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import duckdb

from pipelines.contract.keys import parse_manifest_key
from pipelines.errors import UsageError
from pipelines.store import Store
from pipelines.warehouse import gate, load
from pipelines.warehouse.landing import SUPPRESSED, AdmissionPolicy, Arrival, Manifest, everybody
from pipelines.warehouse.load import UNLOADABLE, Loaded

# Newer rules may know what older ones did not: these are judged again by themselves once the rules have changed.
BY_NEWER_RULES = (
    "unknown_schema", "unknown_columns", "wrong_types", "bad_value", "out_of_range", "null_value", "unbalanced",
    "inconsistent", UNLOADABLE,
)  # fmt: skip
# A child of the gate may have died of the machine's trouble: these are judged again a few times.
BY_CHANCE = ("gate_crash", "gate_timeout")
MOST_ATTEMPTS = 3
# Good batches on their way back into the wire, after another one of their tenant was taken out (exclusion.py).
UNFINISHED = "awaiting_reload"


@dataclass(frozen=True)
class Choice:
    """Which refused batches are meant: all that match every part that is given."""

    reason: str | None = None
    since: datetime | None = None
    manifest: str | None = None
    device: str | None = None
    tenant: str | None = None


COLUMNS = (
    "manifest_key", "tenant_id", "device_id", "seq", "reason", "attempts", "rows_claimed", "uploader_version",
    "received_at", "refused_at",
)  # fmt: skip


def batches(connection: duckdb.DuckDBPyConnection, choice: Choice) -> list[dict[str, Any]]:
    """Refused batches, oldest first. A reason without a column means that reason for any column."""
    rows = connection.execute(
        """
        SELECT manifest_key, tenant_id, device_id, seq, reason, attempts, rows_claimed, uploader_version, received_at,
            loaded_at AS refused_at
        FROM wire.batches
        WHERE status = 'quarantined'
            AND ($reason IS NULL OR reason = $reason OR split_part(reason, ':', 1) = $reason)
            AND ($since IS NULL OR loaded_at >= $since)
            AND ($manifest IS NULL OR manifest_key = $manifest)
            AND ($device IS NULL OR device_id = $device)
            AND ($tenant IS NULL OR tenant_id = $tenant)
        ORDER BY received_at, manifest_key
        """,
        asdict(choice),
    ).fetchall()
    return [dict(zip(COLUMNS, row, strict=True)) for row in rows]


def reasons(connection: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """How many batches are refused now, by reason."""
    found = connection.execute(
        "SELECT reason, count(*) FROM wire.batches WHERE status = 'quarantined' GROUP BY reason ORDER BY reason"
    ).fetchall()
    return {str(reason): int(count) for reason, count in found}


def objects(connection: duckdb.DuckDBPyConnection, manifest: str) -> list[dict[str, Any]]:
    """The objects that a refused batch names, as far as its manifest could be read. Raises UsageError."""
    if not batches(connection, Choice(manifest=manifest)):
        raise UsageError(f"{manifest} is not in quarantine: `apiary quarantine list` shows what is")
    names = ("table_name", "object_key", "sha256", "bytes", "rows_claimed")
    rows = connection.execute(
        "SELECT table_name, object_key, sha256, bytes, rows_claimed FROM wire.batch_objects WHERE manifest_key = ?"
        " ORDER BY table_name",
        [manifest],
    ).fetchall()
    return [dict(zip(names, row, strict=True)) for row in rows]


def replay(
    connection: duckdb.DuckDBPyConnection, store: Store, choice: Choice, *, admission: AdmissionPolicy = everybody
) -> Loaded:
    """Judge refused batches again, by the rules of now; what is loaded then is loaded once.

    Raises StoreUnavailableError, StoreRefusedError.
    """
    return _again(connection, store, batches(connection, choice), admission)


def may_pass(connection: duckdb.DuckDBPyConnection) -> set[str]:
    """Refused batches that newer rules or a calmer machine may let in: keys of their manifests."""
    keys = connection.execute(
        """
        SELECT manifest_key FROM wire.batches
        WHERE status = 'quarantined' AND (
            (split_part(reason, ':', 1) IN (SELECT unnest($newer)) AND gate_hash IS DISTINCT FROM $rules)
            OR (reason IN (SELECT unnest($chance)) AND attempts < $most)
            OR reason = $unfinished
        )
        """,
        {
            "newer": BY_NEWER_RULES,
            "rules": gate.rules_hash(),
            "chance": BY_CHANCE,
            "most": MOST_ATTEMPTS,
            "unfinished": UNFINISHED,
        },
    ).fetchall()
    return {key for (key,) in keys}


def replay_what_may_pass(
    connection: duckdb.DuckDBPyConnection, store: Store, *, admission: AdmissionPolicy = everybody
) -> Loaded:
    """Judge them again, and those of somebody who was erased since: nobody has to ask for it after an upgrade.

    Raises StoreUnavailableError, StoreRefusedError.
    """
    chosen = may_pass(connection)
    users = dict(
        connection.execute("SELECT manifest_key, user_id FROM wire.batches WHERE status = 'quarantined'").fetchall()
    )

    def is_suppressed(row: dict[str, Any]) -> bool:
        arrival = _arrival(row)
        reason = admission(arrival, Manifest("", users[row["manifest_key"]] or "")) if arrival else None
        return reason is not None and reason.startswith(SUPPRESSED)

    refused = batches(connection, Choice())
    found = [row for row in refused if row["manifest_key"] in chosen or is_suppressed(row)]
    return _again(connection, store, found, admission)


def _arrival(row: dict[str, Any]) -> Arrival | None:
    key = str(row["manifest_key"])
    parts = parse_manifest_key(key)
    return Arrival(key, parts, row["received_at"]) if parts is not None else None


def _again(
    connection: duckdb.DuckDBPyConnection, store: Store, found: Sequence[dict[str, Any]], admission: AdmissionPolicy
) -> Loaded:
    arrivals = [arrival for row in found if (arrival := _arrival(row)) is not None]
    return load.load(connection, store, arrivals, admission=admission, again={arrival.key for arrival in arrivals})
