"""One shipping: read what is new, seal it, deliver it. Each part may die at any point and is taken up again.

Does not belong here: reading (collect.py), files (spool.py), consent's rules (consent.py).
"""

import random
import sqlite3
import time
from collections import Counter as TallyOf
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pipelines.device import consent, enrolment, limits, outbox, quota
from pipelines.device.collect import Collector, Progress
from pipelines.device.consent import Consent
from pipelines.device.enrolment import Enrolment
from pipelines.device.errors import DeviceError
from pipelines.device.redact import Redactor
from pipelines.device.spool import DamagedError, Sealed, Spool
from pipelines.device.state import Counts, State
from pipelines.errors import UsageError
from pipelines.failpoints import fp
from pipelines.home import BusyError, Home, exclusive
from pipelines.store import Store, StoreRefusedError, StoreRejectedError, StoreUnavailableError, open_store

# A store that does not answer gets some seconds; then the batch waits in the spool for the next shipping.
TRIES = 4
FIRST_DELAY_SECONDS = 0.5
MAX_DELAY_SECONDS = 30.0

RESEALS = 10  # batches that may be found damaged or refused in one shipping

Sleep = Callable[[float], None]
WhenFull = Literal["pause", "drop_oldest"]


@dataclass(frozen=True)
class Shipped:
    """What one shipping delivered, and what waits."""

    batches: int
    rows: int
    bytes: int
    waiting: int
    store: str
    paused: str | None = None
    """Why nothing new was read, if so."""
    problems: tuple[str, ...] = ()
    """Homes and sources that could not be read; the rest went on."""
    quota: str = ""
    """What came of fetching the newest budgets."""


def ship(
    home: Home,
    homes: Sequence[Path],
    *,
    store_url: str | None = None,
    progress: Progress | None = None,
    sleep: Sleep = time.sleep,
    when_full: WhenFull = "pause",
) -> Shipped:
    """Ship once. Raises UsageError without consent, DeviceError if the disk is full or the store does not answer.

    When the spool or the disk is full nothing new is read: the agents' own files keep it, so nothing is lost. By choice
    the oldest waiting batch is dropped instead, and counted.
    """
    enrolled = enrolment.require(home)
    try:
        with _granted_state(home, store_url or enrolled.store) as state, exclusive(home.device / "lock"):
            granted = consent.require(state)  # once more: it may have been withdrawn before we held the lock
            store = _store(store_url or enrolled.store)
            now = datetime.now(UTC)
            redactor = Redactor(enrolment.tenant_key(home))
            problems: tuple[str, ...] = ()
            spool = Spool(home.device / "spool")
            full = limits.why_full(home.device, spool.size())
            if full is None:
                collector = Collector(state, enrolled, redactor, granted, now=now, progress=progress)
                collector.run(homes)
                problems = (*collector.problems, *_unread(collector.counted))
            elif when_full == "drop_oldest":
                _drop_oldest(state, spool)
            spool.prune(now)
            for _ in range(RESEALS):
                spool.seal_all(state, enrolled, granted, now)
                shipped = deliver(state, spool, store, sleep=sleep)
                if not state.batches("cut"):
                    said = _fetch_quota(home, state, enrolled, granted, store)
                    return replace(shipped, paused=full, problems=problems, quota=said)
            raise DeviceError("the spool is damaged again and again: check this disk, then ship again")
    except BusyError:
        raise DeviceError("another shipping of this device is running: wait for it to end") from None
    except sqlite3.DatabaseError as error:
        raise DeviceError(f"the device's state cannot be written: {error}; free some space and ship again") from error
    except OSError as error:
        raise DeviceError(
            f"{error.strerror or error}: free some space or mend the permissions, and ship again"
        ) from error


def _fetch_quota(home: Home, state: State, enrolled: Enrolment, granted: Consent, store: Store) -> str:
    """Fetch the newest budgets after a delivery; what came of it. Use that none of them asks for is forgotten."""
    said = quota.fetch(home, enrolled, granted, store)
    kept, _ = quota.load(home, tenant=enrolled.tenant, region=enrolled.region)
    if kept is not None:
        counted = kept.ranges(enrolled.device_id, str(state.value("epoch")))
        with state.step():
            state.prune_usage(before=quota.oldest_day(min(datetime.now(UTC), kept.as_of)), counted=counted)
    return said


@contextmanager
def _granted_state(home: Home, store_url: str) -> Iterator[State]:
    """The state of a device with an open grant. Without one nothing is made, not even a lock file."""
    state = consent.open_state(home)
    with closing(state) if state else nullcontext():
        if state is not None and state.open_requests():
            _send_requests(state, store_url)
        consent.require(state)
        assert state is not None  # noqa: S101 - a grant lives in a state
        yield state


def _send_requests(state: State, store_url: str) -> None:
    """A withdrawal goes out before anything else is looked at; if it cannot, the next shipping tries again."""
    with suppress(StoreUnavailableError, StoreRefusedError):
        outbox.send(state, _store(store_url))


def _store(url: str) -> Store:
    try:
        return open_store(url)
    except ValueError as error:
        raise UsageError(str(error)) from None


def deliver(state: State, spool: Spool, store: Store, *, sleep: Sleep = time.sleep) -> Shipped:
    """Put every sealed batch: its objects, then its manifest. Existing objects are as good as new ones.

    A batch with a damaged file is opened again, to be sealed anew from its rows; one that the store will never take is
    buried under a tombstone. Raises DeviceError if the store does not answer or refuses; what was delivered stays
    delivered.
    """
    spool.sweep(state)
    batches = rows = size = 0
    for batch in list(spool.sealed(state)):
        try:
            _put(batch, store, sleep)
        except DamagedError:
            with state.step():
                state.reopen(batch.seq)
            break  # those after it hold the hash of its manifest
        except StoreRejectedError as error:
            spool.bury(state, batch, str(error).rpartition(": ")[2])
            break
        except (StoreUnavailableError, StoreRefusedError) as error:
            waiting = state.totals()["batches_waiting"]
            raise DeviceError(f"{error}; {waiting} batches wait safely in the spool: ship again later") from error
        fp("deliver.put")
        with state.step():
            state.delivered(batch.seq, datetime.now(UTC))
        fp("deliver.marked")
        spool.finish(batch)
        fp("deliver.finished")
        batches, rows, size = batches + 1, rows + batch.rows, size + batch.size
    return Shipped(batches, rows, size, state.totals()["batches_waiting"], store.url)


def _unread(counted: Sequence[Counts]) -> list[str]:
    """One line for each way in which sources could not be read."""
    outcomes = TallyOf(counts.outcome for counts in counted if counts.outcome != "read")
    return [
        f"{number} file{'s' * (number > 1)} could not be read ({outcome.replace('_', ' ')}); the rest went on"
        for outcome, number in sorted(outcomes.items())
    ]


def _drop_oldest(state: State, spool: Spool) -> None:
    """By the owner's choice: the oldest waiting batch gives its place to what comes."""
    oldest = next(spool.sealed(state), None)
    if oldest is not None and any(file.path.suffix == ".parquet" for file in oldest.files):
        spool.bury(state, oldest, "dropped_when_full")


def _put(batch: Sealed, store: Store, sleep: Sleep) -> None:
    for file in batch.files:
        data = file.read()
        for attempt in range(TRIES):
            try:
                fp("put.before")
                store.put(file.key, data)
                fp("put.after")
                break
            except StoreUnavailableError:
                if attempt == TRIES - 1:
                    raise
                # Full jitter: many devices that lost the store together must not come back together.
                sleep(random.uniform(0, min(MAX_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2**attempt)))  # noqa: S311
