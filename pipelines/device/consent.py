"""The consent book: nothing is read for sending, and nothing leaves, without an open grant.

    unset -> granted <-> paused -> withdrawn -> deletion_requested -> confirmed

Does not belong here: what a grant lets out (the contract), what else belongs to a grant (grant.py), reading.
"""

import json
import secrets
from collections.abc import Collection, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from pipelines.contract.receipts import ErasureRequest
from pipelines.contract.wire import AGENT_RUNTIMES, contract_hash
from pipelines.device.enrolment import Enrolment
from pipelines.device.state import State, opened
from pipelines.errors import UsageError
from pipelines.failpoints import fp
from pipelines.home import Home

History = Literal["include", "exclude"]
SOURCES: dict[str, str] = {
    "events": "events.jsonl of sessions and workers: turns, tools, runs, states",
    "logs": "the runtime's own logs: L1, L2 and L3 files, runs.jsonl",
    "descriptions": "meta.json, state.json, metadata.json: what sessions and colonies say of themselves",
    "tasks": "progress.db and tasks.json: how far tasks are (and metadata.json: whose list it is)",
}
"""The kinds of sources that a consent may cover, in plain words."""
BookState = Literal["granted", "paused", "withdrawn", "deletion_requested", "confirmed"]
WHAT_TO_DO: dict[BookState | None, str] = {
    None: "there is no consent, so nothing was sent: look at `apiary device preview`, then grant it",
    "paused": "consent is paused, so nothing was sent: `apiary device consent resume` goes on",
    "withdrawn": "consent was withdrawn, so nothing was sent: grant it again if that is what you want",
    "deletion_requested": "consent was withdrawn, so nothing was sent: grant it again if that is what you want",
    "confirmed": "consent was withdrawn and the deletion is confirmed, so nothing was sent: grant it again if you want",
}


@dataclass(frozen=True)
class Scope:
    """What a grant covers beside the contract's columns.

    `homes`: keyed hashes of the agents' homes (never a path); None: every home that is named to this device.
    `sources`: names of SOURCES. `runtimes`: the agent runtimes whose homes it covers.
    """

    homes: frozenset[str] | None = None
    sources: frozenset[str] = frozenset(SOURCES)
    runtimes: frozenset[str] = frozenset(AGENT_RUNTIMES)

    def covers(self, other: "Scope") -> bool:
        """Whether everything that `other` lets out is let out by this."""
        return (
            other.sources <= self.sources
            and other.runtimes <= self.runtimes
            and (self.homes is None or (other.homes is not None and other.homes <= self.homes))
        )


@dataclass(frozen=True)
class Consent:
    """The newest line of the book. `at` is the time of the grant, also while it is paused."""

    consent_id: str
    state: BookState
    at: datetime
    history: History
    contract_hash: str
    scope: Scope = Scope()

    @property
    def is_open(self) -> bool:
        """Whether it covers homes: it was granted, and may be paused."""
        return self.state in ("granted", "paused")

    @property
    def is_outdated(self) -> bool:
        """Whether this release reads or sends something else than what it was granted for."""
        return self.contract_hash != contract_hash()

    @property
    def history_starts_at(self) -> datetime | None:
        """Records timed before this do not leave; None if history is included."""
        return self.at if self.history == "exclude" else None


def open_state(home: Home) -> AbstractContextManager[State | None]:
    """The state of this device; None if there is none: then there is no consent either. Raises DeviceError."""
    path = home.device / "state.db"
    return opened(path) if path.exists() else nullcontext()


def current(state: State) -> Consent | None:
    """The newest line of the book, or None: nothing was ever granted."""
    row = state.last_consent()
    if row is None:
        return None
    consent_id, name, at, history, contract = row
    homes, named = state.scope(consent_id) or (None, list(SOURCES))
    # A grant from before there were several names no runtime: it was asked for Hive's homes.
    runtimes = frozenset(named) - frozenset(SOURCES) or frozenset({"hive"})
    scope = Scope(None if homes is None else frozenset(homes), frozenset(named) & frozenset(SOURCES), runtimes)
    return Consent(consent_id, name, datetime.fromisoformat(at), history or "exclude", contract or "", scope)  # type: ignore[arg-type]


def require(state: State | None) -> Consent:
    """The open grant. Raises UsageError if there is none, or if the contract has become wider since."""
    consent = current(state) if state else None
    if consent is None or consent.state != "granted":
        raise UsageError(WHAT_TO_DO[consent.state if consent else None])
    if consent.is_outdated:
        raise UsageError("nothing was sent: the contract has changed since the consent; grant it again after a preview")
    return consent


def grant(state: State, *, history: History, now: datetime, scope: Scope | None = None) -> Consent:
    """Write a grant into the book (grant.py does what belongs to it)."""
    scope = scope or Scope()
    consent = Consent(secrets.token_hex(16), "granted", now, history, contract_hash(), scope)
    _write(state, consent)
    named = sorted(scope.sources | scope.runtimes)
    state.set_scope(consent.consent_id, None if scope.homes is None else sorted(scope.homes), named)
    if state.value("epoch") is None:
        _new_epoch(state)
    return consent


def pause(state: State) -> Consent:
    """Read and send nothing until it is resumed. What happens meanwhile stays in the agents' files and is read then."""
    consent = current(state)
    if consent and consent.state == "paused":
        raise UsageError("consent is paused already: `apiary device consent resume` goes on")
    return _turn(state, "granted", "paused", "there is no open consent to pause: nothing is read and nothing leaves")


def resume(state: State) -> Consent:
    """Go on after a pause."""
    consent = current(state)
    if consent and not consent.is_open:
        raise UsageError("consent was withdrawn, which a new one follows only: `apiary device consent grant`")
    return _turn(state, "paused", "granted", "consent is not paused")


def withdraw(state: State, enrolment: Enrolment, *, now: datetime, epochs: Collection[str] = ()) -> None:
    """Withdraw: forget all that was read and not sent, and ask that what was sent be deleted. One step, all of it.

    `epochs`: those that something else than this state remembers, which may have been damaged and begun anew.
    """
    consent = current(state)
    if consent is None:
        raise UsageError("there is no consent to withdraw")
    if not consent.is_open:
        raise UsageError("consent was withdrawn already: `apiary device status` says what became of the deletion")
    with state.step():
        _write(state, replace(consent, state="withdrawn"))
        own = json.loads(state.value("epochs") or "[]")  # the last one names the request's place
        sent = [*sorted(set(epochs) - set(own)), *own]
        state.add_request(lambda seq: _request(sent, enrolment, consent, seq, now))
        fp("withdraw.requested")
        forget(state)
        fp("withdraw.forgotten")


def deletion_requested(state: State) -> None:
    """The request to delete has reached the store."""
    _turn(state, "withdrawn", "deletion_requested", "no deletion is being asked for")


def confirmed(state: State) -> None:
    """The server's receipt says that what the request named is gone."""
    _turn(state, "deletion_requested", "confirmed", "no deletion is being asked for")


def forget(state: State) -> None:
    """Forget, in a step, all that was read and not sent."""
    state.forget_all()
    _new_epoch(state)  # batches count from 1 again: their chain must be another one


def _turn(state: State, before: BookState, after: BookState, otherwise: str) -> Consent:
    consent = current(state)
    if consent is None or consent.state != before:
        raise UsageError(otherwise)
    turned = replace(consent, state=after)
    with state.step():
        _write(state, turned)
    return turned


def _write(state: State, consent: Consent) -> None:
    state.add_consent(consent.consent_id, consent.state, consent.at, consent.history, consent.contract_hash)


def _new_epoch(state: State) -> None:
    epoch = secrets.token_hex(8)
    epochs = json.loads(state.value("epochs") or "[]")
    state.set_value("epochs", json.dumps([*epochs, epoch]))
    state.set_value("epoch", epoch)


def _request(
    epochs: Iterable[str], enrolment: Enrolment, consent: Consent, seq: int, now: datetime
) -> tuple[str, bytes]:
    """The key and body of a withdrawal: everything this device ever sent is to go."""
    request = ErasureRequest(
        request_id=secrets.token_hex(16), region=enrolment.region, tenant=enrolment.tenant, device=enrolment.device_id,
        epochs=tuple(epochs), user=enrolment.user, consent_id=consent.consent_id,
        seq=seq, requested_at=now,
    )  # fmt: skip
    return request.key(), request.to_json()
