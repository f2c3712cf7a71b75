"""Where a device stands, for its owner: consent, homes, what left, what waits, and what became of deletions.

Does not belong here: printing (pipelines/commands), asking a store (grant.py).
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pipelines.device import collect, consent, deletions, enrolment, receipts, service
from pipelines.device.consent import Consent
from pipelines.device.deletions import Deletion
from pipelines.device.enrolment import Enrolment
from pipelines.device.readers import registry
from pipelines.device.readers.base import Runtime
from pipelines.device.redact import Redactor
from pipelines.device.state import PASSED_OVER
from pipelines.home import Home


@dataclass(frozen=True)
class AgentsHome:
    """A home that a shipping reads, or would read if the consent covered it. `runtime`: None if nothing is there."""

    path: Path
    runtime: Runtime | None
    is_covered: bool


@dataclass(frozen=True)
class Delivered:
    """What left this device since it was enrolled, by its receipts. `rows_deleted` are receipted as erased."""

    batches: int = 0
    rows: int = 0
    bytes: int = 0
    rows_deleted: int = 0
    last_at: datetime | None = None


@dataclass(frozen=True)
class Status:
    """Where a device stands. `waits_until`: a store that did not take a batch is left alone until then."""

    enrolled: Enrolment
    store: str
    consent: Consent | None
    homes: tuple[AgentsHome, ...]
    delivered: Delivered
    rows_waiting: int
    batches_waiting: int
    waits_until: datetime | None
    is_installed: bool
    deletions: tuple[Deletion, ...]
    passed_over: int | None


def status(home: Home, homes: Sequence[Path], *, store_url: str | None = None) -> Status:
    """Where this device stands. `homes`: those that a shipping would be about. Raises UsageError, DeviceError."""
    enrolled = enrolment.require(home)
    store = store_url or enrolled.store
    with consent.open_state(home) as state:
        current = consent.current(state) if state else None
        asked = tuple(deletions.asked(state)) if state else ()
        totals = state.totals() if state else {}
        trouble = state.trouble(store) if state else None
        passed_over = state.value(PASSED_OVER) if state else None
        last = max((batch["delivered_at"] for batch in state.batches("delivered")), default=None) if state else None
    covered = current.scope.homes if current else frozenset()
    redactor = Redactor(enrolment.tenant_key(home))
    return Status(
        enrolled=enrolled, store=store, consent=current,
        homes=tuple(
            AgentsHome(path, registry.recognised(path), covered is None or collect.home_key(redactor, path) in covered)
            for path in homes
        ),
        delivered=_delivered(home, asked, datetime.fromisoformat(last) if last else None),
        rows_waiting=totals.get("rows_staged", 0), batches_waiting=totals.get("batches_waiting", 0),
        waits_until=trouble.next_at if trouble else None, is_installed=service.is_installed(os.environ),
        deletions=asked, passed_over=None if passed_over is None else int(passed_over),
    )  # fmt: skip


def _delivered(home: Home, asked: Sequence[Deletion], last_at: datetime | None) -> Delivered:
    sent = [receipt for receipt in receipts.receipts(home) if receipt.tombstone is None]
    erased = {epoch for deletion in asked if deletion.receipt for epoch in deletion.epochs}
    return Delivered(
        len(sent), sum(sum(receipt.rows.values()) for receipt in sent), sum(receipt.bytes for receipt in sent),
        sum(sum(receipt.rows.values()) for receipt in sent if receipt.epoch in erased),
        last_at or max((datetime.fromisoformat(receipt.cut_at) for receipt in sent), default=None),
    )  # fmt: skip
