"""Granting consent: the line in the book and, without history, what there was before it.

Does not belong here: the book's rules (consent.py), reading for sending (collect.py).
"""

from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from pipelines.device import consent, enrolment
from pipelines.device.collect import Collector
from pipelines.device.consent import Consent, History
from pipelines.device.errors import DeviceError
from pipelines.device.redact import Redactor
from pipelines.device.spool import Spool
from pipelines.device.state import State
from pipelines.home import BusyError, Home, exclusive

COVERS = (
    "which model was used, when, with how many tokens and what cost the agent reported",
    "which tools ran, how long and whether they failed; built-in tools by name, your own as keyed hashes",
    "how agents, workers, colonies and tasks are doing: states, times, counts",
    "names you chose (colonies, queens, agents, private models) only as keyed hashes",
)
NEVER = "prompts, answers, tool arguments and results, files, paths, e-mail addresses, error messages"


def grant(home: Home, homes: Sequence[Path], *, history: History, now: datetime | None = None) -> Consent:
    """Grant consent. Without history, what is there now is written down first: a crash leaves no grant without it.

    Raises UsageError, DeviceError.
    """
    enrolled = enrolment.require(home)
    now = now or datetime.now(UTC)
    try:
        with exclusive(home.device / "lock"), closing(State(home.device / "state.db")) as state:
            before = consent.current(state)
            if before and before.state == "granted" and before.history != history:
                # What was passed over must be read after all, or what was read and not sent must stay.
                with state.step():
                    consent.forget(state)
                Spool(home.device / "spool").purge()
            if history == "exclude":
                intended = Consent("", "granted", now, history, "")
                redactor = Redactor(enrolment.tenant_key(home))
                Collector(state, enrolled, redactor, intended, now=now).baseline(homes)
            with state.step():
                return consent.grant(state, history=history, now=now)
    except BusyError:
        raise DeviceError("a shipping of this device is running: wait for it to end") from None


def withdraw(home: Home) -> None:
    """Withdraw consent: what was read and not sent is gone. Raises UsageError, DeviceError."""
    enrolment.require(home)
    try:
        with exclusive(home.device / "lock"):
            state = consent.open_state(home)
            if state is None:
                consent.require(None)
                return
            with closing(state):
                consent.withdraw(state, now=datetime.now(UTC))
            Spool(home.device / "spool").purge()
    except BusyError:
        raise DeviceError("a shipping of this device is running: wait for it to end") from None
