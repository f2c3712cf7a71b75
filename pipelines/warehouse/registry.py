"""Which devices may send: what an administrator said of them, in one file beside the warehouse.

A device that nobody named may send under any tenant its credentials reach, unless the register is closed.
Does not belong here: what a batch may hold (decode.py), whether it agrees with its key (landing.py).
"""

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from pipelines.contract.keys import is_slug, parse_manifest_key
from pipelines.errors import ExpectedError, UsageError
from pipelines.home import replace_file
from pipelines.store import Store
from pipelines.warehouse import database, suppression
from pipelines.warehouse.landing import AdmissionPolicy, Arrival, Manifest

DEVICE = re.compile(r"[0-9a-f]{32}")
EXPELLED_DEVICE, EXPELLED_TENANT = "expelled_device", "expelled_tenant"


class RegisterDamagedError(ExpectedError):
    """The register cannot be read. Nothing is loaded: a revoked device would be let in."""


@dataclass(frozen=True)
class Entry:
    """What was said of one device. `revoked_at`: what arrives from then on is refused; `expelled_at`: whatever came."""

    tenant: str | None = None
    region: str | None = None
    revoked_at: str | None = None
    expelled_at: str | None = None


@dataclass(frozen=True)
class Register:
    """The devices that somebody spoke of; `is_closed`: nobody else may send.

    `tenants`: when each tenant was expelled that is. `batches`: single batches that were set aside, with the reason.
    """

    is_closed: bool = False
    devices: dict[str, Entry] = field(default_factory=dict)
    tenants: dict[str, str] = field(default_factory=dict)
    batches: dict[str, str] = field(default_factory=dict)

    def refusal(self, arrival: Arrival, _manifest: Manifest) -> str | None:
        """Why a batch or its sender is refused, or None."""
        prefix = arrival.parts.prefix
        if prefix.tenant in self.tenants:
            return EXPELLED_TENANT
        entry = self.devices.get(prefix.device)
        if entry is not None and entry.expelled_at is not None:
            return EXPELLED_DEVICE
        if arrival.key in self.batches:
            return self.batches[arrival.key]
        if entry is None:
            return "unknown_device" if self.is_closed else None
        if entry.tenant is not None and (entry.tenant, entry.region) != (prefix.tenant, prefix.region):
            return "foreign_device"
        if entry.revoked_at is not None and arrival.received_at >= datetime.fromisoformat(entry.revoked_at):
            return "revoked_device"
        return None


def admission_policy(folder: Path, store: Store) -> AdmissionPolicy:
    """Who is asked of every batch before its objects are fetched, and again at every replay and rebuild.

    THE place for a reason that lies with the sender: the store's list of the erased, then the register. A reason that
    begins with `suppressed` is no fault (load.py). Raises RegisterDamagedError, StoreUnavailableError.
    """
    erased, register = suppression.load(store), load(folder)

    def ask(arrival: Arrival, manifest: Manifest) -> str | None:
        return erased.refusal(arrival, manifest) or register.refusal(arrival, manifest)

    return ask


def forget(folder: Path, erased: Collection[str]) -> None:
    """Say nothing more of devices and batches that are erased: the list of the erased refuses them."""
    register = load(folder)
    left = {device: entry for device, entry in register.devices.items() if device not in erased}
    batches = {
        key: reason for key, reason in register.batches.items() if key not in erased and _device_of(key) not in erased
    }
    if len(left) < len(register.devices) or len(batches) < len(register.batches):
        _save(folder, replace(register, devices=left, batches=batches))


def load(folder: Path) -> Register:
    """The register of the warehouse in a folder; an empty one if there is none. Raises RegisterDamagedError."""
    path = _path(folder)
    if not path.exists():
        return Register()
    try:
        found = json.loads(path.read_text("utf-8"))
        devices = {device: Entry(**entry) for device, entry in found["devices"].items()}
        for entry in devices.values():
            if entry.revoked_at is not None and datetime.fromisoformat(entry.revoked_at).tzinfo is None:
                raise ValueError
        # A register of an earlier release expelled nobody.
        tenants, batches = (dict(found.get(name, {})) for name in ("tenants", "batches"))
        return Register(bool(found["is_closed"]), devices, tenants, batches)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise RegisterDamagedError(f"{path} is damaged: restore it; without it nobody knows who was revoked") from None


def admit(folder: Path, device: str, *, tenant: str, region: str) -> None:
    """Say whose device it is: it may send for that tenant only, and no longer counts as revoked. Raises UsageError."""
    if not (is_slug(tenant) and is_slug(region)):
        raise UsageError("a tenant and a region match [a-z0-9][a-z0-9_-]{0,62}")
    _change(folder, device, Entry(tenant, region))


def revoke(folder: Path, device: str, *, since: datetime) -> None:
    """Refuse what arrives from a device since a moment. Raises UsageError."""
    _change(folder, device, replace(load(folder).devices.get(device, Entry()), revoked_at=since.isoformat()))


def expel(folder: Path, device: str, *, since: datetime) -> None:
    """Refuse whatever came or comes from a device. Raises UsageError."""
    _change(folder, device, replace(load(folder).devices.get(device, Entry()), expelled_at=since.isoformat()))


def expel_tenant(folder: Path, tenant: str, *, since: datetime) -> None:
    """Refuse whatever came or comes for a tenant. Raises UsageError."""
    if not is_slug(tenant):
        raise UsageError("a tenant matches [a-z0-9][a-z0-9_-]{0,62}")
    register = load(folder)
    _save(folder, replace(register, tenants=register.tenants | {tenant: since.isoformat()}))


def readmit(folder: Path, device: str) -> None:
    """A device is expelled no more; nothing else that was said of it changes. Raises UsageError."""
    entry = load(folder).devices.get(device)
    if entry is None or entry.expelled_at is None:
        raise UsageError(f"{device} is not expelled: `apiary devices list` shows who is")
    register, left = load(folder), replace(entry, expelled_at=None)
    others = {name: entry for name, entry in register.devices.items() if name != device}
    # Somebody of whom nothing is said must not count as admitted.
    _save(folder, replace(register, devices=others if left == Entry() else others | {device: left}))


def readmit_tenant(folder: Path, tenant: str) -> None:
    """A tenant is expelled no more. Raises UsageError."""
    register = load(folder)
    if tenant not in register.tenants:
        raise UsageError(
            f"tenant {tenant} is not expelled; expelled are: {', '.join(sorted(register.tenants)) or 'none'}"
        )
    _save(folder, replace(register, tenants={name: at for name, at in register.tenants.items() if name != tenant}))


def set_aside(folder: Path, batches: Mapping[str, str]) -> None:
    """Refuse single batches, each with its reason, until they are asked for again."""
    register = load(folder)
    _save(folder, replace(register, batches=register.batches | dict(batches)))


def take_back(folder: Path, keys: Collection[str]) -> None:
    """Let single batches be judged again by their content alone."""
    register = load(folder)
    left = {key: reason for key, reason in register.batches.items() if key not in keys}
    if len(left) < len(register.batches):
        _save(folder, replace(register, batches=left))


def close(folder: Path, *, is_closed: bool) -> None:
    """Let only admitted devices send, or everybody."""
    _save(folder, replace(load(folder), is_closed=is_closed))


def listed(folder: Path, warehouse: Path) -> list[dict[str, Any]]:
    """Every device that was spoken of or has sent, with its state and its last batch."""
    register = load(folder)
    rows: dict[str, dict[str, Any]] = {}
    if database.exists(warehouse):
        with database.connect(warehouse, read_only=True) as connection:
            found = connection.execute(
                """
                SELECT device_id, string_agg(DISTINCT tenant_id, ' ' ORDER BY tenant_id), count(*),
                    strftime(max(received_at) AT TIME ZONE 'UTC', '%Y-%m-%d %H:%M:%S')
                FROM wire.batches WHERE device_id IS NOT NULL GROUP BY device_id
                """
            ).fetchall()
        rows = {d: {"device": d, "tenant": t, "batches": n, "last_received_at": at} for d, t, n, at in found}
    for device, entry in register.devices.items():
        rows.setdefault(device, {"device": device, "tenant": entry.tenant, "batches": 0, "last_received_at": None})
    for device, row in rows.items():
        known = register.devices.get(device)
        row["state"] = (
            ("unknown" if register.is_closed else "open")
            if known is None
            else f"expelled since {known.expelled_at}"
            if known.expelled_at
            else f"revoked since {known.revoked_at}"
            if known.revoked_at
            else "admitted"
        )
    return sorted(rows.values(), key=lambda row: str(row["device"]))


def _change(folder: Path, device: str, entry: Entry) -> None:
    if DEVICE.fullmatch(device) is None:
        raise UsageError(f"{device!r} is no device: `apiary devices list` shows them")
    register = load(folder)
    _save(folder, replace(register, devices=register.devices | {device: entry}))


def _device_of(key: str) -> str | None:
    parts = parse_manifest_key(key)
    return parts.prefix.device if parts else None


def _save(folder: Path, register: Register) -> None:
    replace_file(_path(folder), (json.dumps(asdict(register), indent=1, sort_keys=True) + "\n").encode())


def _path(folder: Path) -> Path:
    return folder / "devices.json"
