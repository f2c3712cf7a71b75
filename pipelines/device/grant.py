"""Granting consent: the line in the book and, without history, what there was before it.

Does not belong here: the book's rules (consent.py), reading for sending (collect.py).
"""

import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pipelines.device import consent, enrolment, outbox, own_sums, receipts
from pipelines.device import homes as agent_homes
from pipelines.device.collect import Collector, home_key
from pipelines.device.consent import SOURCES, Consent, History, Scope
from pipelines.device.errors import DeviceError
from pipelines.device.probe import Probe, probe
from pipelines.device.readers import registry
from pipelines.device.redact import Redactor
from pipelines.device.spool import Spool
from pipelines.device.state import State, opened
from pipelines.errors import UsageError
from pipelines.failpoints import fp
from pipelines.home import BusyError, Home, exclusive
from pipelines.store import StoreRefusedError, StoreUnavailableError

COVERS = (
    "which model was used, when, with how many tokens and what cost the agent reported",
    "which tools ran, how long and whether they failed; built-in tools by name, your own as keyed hashes",
    "how agents, workers, colonies and tasks are doing: states, times, counts",
    "names you chose (colonies, queens, agents, private models) only as keyed hashes",
)
NEVER = "prompts, answers, tool arguments and results, files, paths, e-mail addresses, error messages"


def grant(
    home: Home, homes: Sequence[Path], *, history: History, sources: Collection[str] = (),
    now: datetime | None = None,
) -> Consent:  # fmt: skip
    """Grant consent for these homes (none named: for all that will be) and these sources: agent runtimes and kinds of
    files. Where none of the former, or of the latter, is named, all are covered.

    Without history, what is there now is written down first: a crash leaves no grant without it.

    Raises UsageError, DeviceError.
    """
    enrolled = enrolment.require(home)
    now = now or datetime.now(UTC)
    scope, redactor = scope_of(home, homes, sources), Redactor(enrolment.tenant_key(home))
    try:
        with exclusive(home.device / "lock"), opened(home.device / "state.db") as state:
            before = consent.current(state)
            is_in_force = before is not None and before.state in ("granted", "paused")
            if before and is_in_force and (before.history != history or not scope.covers(before.scope)):
                # What was passed over must be read after all, or what was read and not sent must stay.
                with state.step():
                    consent.forget(state)
                Spool(home.device / "spool").purge()
            if history == "exclude":
                intended = Consent("", "granted", now, history, "", scope)
                Collector(state, enrolled, redactor, intended, now=now, scratch=home.scratch).baseline(homes)
            with state.step():
                granted = consent.grant(state, history=history, now=now, scope=scope)
                agent_homes.keep(home, granted.consent_id, homes)
            return granted
    except BusyError:
        raise DeviceError("a shipping of this device is running: wait for it to end") from None


def scope_of(home: Home, homes: Sequence[Path], sources: Collection[str]) -> Scope:
    """What a grant for these homes and sources covers. Raises UsageError."""
    enrolment.require(home)
    known = (*registry.names(), *SOURCES)
    if unknown := sorted(set(sources) - set(known)):
        raise UsageError(f"there are no sources {', '.join(unknown)}: choose from {', '.join(known)}")
    kinds = frozenset(sources) & frozenset(SOURCES) or frozenset(SOURCES)
    runtimes = frozenset(sources) & frozenset(registry.names()) or frozenset(registry.names())
    redactor = Redactor(enrolment.tenant_key(home))
    return Scope(frozenset(home_key(redactor, path) for path in homes) if homes else None, kinds, runtimes)


def ask_store(home: Home, store_url: str | None = None) -> Probe:
    """Ask the store what kind it is, under an open grant. Raises UsageError."""
    enrolled = enrolment.require(home)
    with consent.open_state(home) as state:
        consent.require(state)
        assert state is not None  # noqa: S101 - a grant lives in a state
        answer = probe(enrolment.open_store(home, store_url or enrolled.store), enrolled)
        state.set_value("store_verdict", re.sub(r"\W", "_", answer.verdict))  # as the contract writes it
    return answer


def pause(home: Home) -> None:
    """Pause. Raises UsageError, DeviceError."""
    with _book(home) as state:
        consent.pause(state)


def resume(home: Home) -> None:
    """Go on. Raises UsageError, DeviceError."""
    with _book(home) as state:
        consent.resume(state)


def withdraw(home: Home, *, store_url: str | None = None) -> bool:
    """Withdraw consent: what was read and not sent is gone, and a request to delete the rest goes to the store.

    Whether the request has arrived; if not, each later shipping tries again, whatever else it refuses.
    Raises UsageError, DeviceError.
    """
    enrolled = enrolment.require(home)
    with _book(home) as state:
        epochs = {receipt.epoch for receipt in receipts.receipts(home)}
        consent.withdraw(state, enrolled, now=datetime.now(UTC), epochs=epochs)
        fp("withdraw.committed")
        Spool(home.device / "spool").purge()
        agent_homes.forget(home)
        own_sums.forget(home)
        for damaged in home.device.glob("*.damaged"):
            damaged.unlink()
        fp("withdraw.purged")
        try:
            outbox.send(state, enrolment.open_store(home, store_url or enrolled.store))
        except (StoreUnavailableError, StoreRefusedError):
            return False
    return True


def confirm(home: Home, *, store_url: str | None = None) -> None:
    """Look whether the server has carried out a deletion that was asked for. Nothing is asked if none was.

    Raises UsageError, StoreUnavailableError, StoreRefusedError.
    """
    enrolled = enrolment.require(home)
    with consent.open_state(home) as state:
        if state is not None and state.unconfirmed_requests():
            outbox.confirm(state, enrolled, enrolment.open_store(home, store_url or enrolled.store))


@contextmanager
def _book(home: Home) -> Iterator[State]:
    """The state with the consent book, held alone."""
    enrolment.require(home)
    try:
        with consent.open_state(home) as state:
            if state is None:
                raise UsageError("there is no consent: nothing was ever granted")
            with exclusive(home.device / "lock"):
                yield state
    except BusyError:
        raise DeviceError("a shipping of this device is running: wait for it to end") from None
