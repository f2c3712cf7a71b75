"""What kind of store this is: asked once, when consent is granted and never before.

S3-compatible is not S3: a server may ignore `If-None-Match`, and its clock may differ. Then nothing is lost or counted
twice all the same, but an overwritten object could not be told from the one that was sent.
Does not belong here: sending (ship.py).
"""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from pipelines.contract.keys import probe_key
from pipelines.contract.numbers import pluralize
from pipelines.device.enrolment import Enrolment
from pipelines.store import Put, Store, StoreRefusedError, StoreUnavailableError

SKEW_SECONDS = 300  # signed requests are refused from 900 on

Verdict = Literal["ok", "degraded-store", "refused", "not reachable"]


@dataclass(frozen=True)
class Probe:
    """A verdict and the reasons for it. `skew_seconds`: how far the store's clock is ahead of this device's."""

    verdict: Verdict
    reasons: tuple[str, ...]
    skew_seconds: float | None = None


def probe(store: Store, enrolment: Enrolment, *, now: datetime | None = None) -> Probe:
    """Put one small object twice, the second time with other content, then as nobody should; look at what is there."""
    key = probe_key(enrolment.tenant, enrolment.device_id, secrets.token_hex(8))
    before = now or datetime.now(UTC)
    try:
        outcomes = (store.put(key, b"first"), store.put(key, b"second"))
        is_replaced = store.takes_carelessly(key, b"third", overwrites=True)
        is_unchecked = store.takes_carelessly(f"{key}-checksum", b"fourth", overwrites=False)
    except StoreRefusedError as error:
        return Probe("refused", (str(error),))
    except StoreUnavailableError as error:
        return Probe("not reachable", (str(error),))
    reasons = []
    if outcomes != (Put.CREATED, Put.EXISTED):
        reasons.append("it lets an object be replaced: If-None-Match is ignored")
    if is_replaced:
        reasons.append("it lets these credentials replace an object by a put without If-None-Match")
    if is_unchecked:
        reasons.append("it takes an object under a wrong checksum")
    skew = None
    try:
        held = store.get(key)
        if held != b"first" and not is_replaced:
            reasons.append("an object that was there has been replaced")
        skew = max(((entry.received_at - before).total_seconds() for entry in store.list(key)), default=None)
    except (StoreUnavailableError, StoreRefusedError, KeyError):
        skew = None  # credentials that may only create are the better ones; the two puts have said what matters
    if skew is not None and abs(skew) > SKEW_SECONDS:
        reasons.append(f"its clock differs from this device's by {pluralize(round(skew), 'second')}")
    return Probe("degraded-store" if reasons else "ok", tuple(reasons), skew)
