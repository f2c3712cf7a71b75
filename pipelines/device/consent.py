"""The consent book: nothing is read for sending, and nothing leaves, without an open grant.

Does not belong here: what a grant lets out (the contract), reading (collect.py).
"""

import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pipelines.contract.wire import contract_hash
from pipelines.device.errors import UsageError
from pipelines.device.state import State
from pipelines.home import Home

History = Literal["include", "exclude"]


@dataclass(frozen=True)
class Consent:
    """The newest line of the book."""

    consent_id: str
    state: Literal["granted", "withdrawn"]
    at: datetime
    history: History
    contract_hash: str

    @property
    def history_starts_at(self) -> datetime | None:
        """Records timed before this do not leave; None if history is included."""
        return self.at if self.history == "exclude" else None


def open_state(home: Home) -> State | None:
    """The state of this device, opened; None if there is none: then there is no consent either."""
    path = home.device / "state.db"
    return State(path) if path.exists() else None


def current(state: State) -> Consent | None:
    """The newest line of the book, or None: nothing was ever granted."""
    row = state.last_consent()
    if row is None:
        return None
    consent_id, name, at, history, contract = row
    return Consent(consent_id, name, datetime.fromisoformat(at), history or "exclude", contract or "")  # type: ignore[arg-type]


def require(state: State | None) -> Consent:
    """The open grant. Raises UsageError if there is none, or if the contract has become wider since."""
    consent = current(state) if state else None
    if consent is None or consent.state != "granted":
        raise UsageError("there is no consent, so nothing was sent: look at `apiary device preview`, then grant it")
    if consent.contract_hash != contract_hash():
        raise UsageError("nothing was sent: the contract has changed since the consent; grant it again after a preview")
    return consent


def grant(state: State, *, history: History, now: datetime) -> Consent:
    """Write a grant into the book (grant.py does what belongs to it)."""
    consent = Consent(secrets.token_hex(16), "granted", now, history, contract_hash())
    state.add_consent(consent.consent_id, consent.state, now, history, consent.contract_hash)
    if state.value("epoch") is None:
        state.set_value("epoch", secrets.token_hex(8))
    return consent


def withdraw(state: State, *, now: datetime) -> None:
    """Write a withdrawal into the book and forget all that was read and not sent."""
    consent = current(state)
    if consent is None or consent.state != "granted":
        raise UsageError("there is no consent to withdraw")
    with state.step():
        state.add_consent(consent.consent_id, "withdrawn", now, consent.history, consent.contract_hash)
        forget(state)


def forget(state: State) -> None:
    """Forget, in a step, all that was read and not sent."""
    state.forget_all()
    state.set_value("epoch", secrets.token_hex(8))  # batches count from 1 again: their chain must be another one
