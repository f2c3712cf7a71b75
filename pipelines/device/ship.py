"""One shipping: read what is new, seal it, deliver it. Each part may die at any point and is taken up again.

Does not belong here: reading (collect.py), files (spool.py), consent's rules (consent.py).
"""

import time
from collections import Counter as TallyOf
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pipelines.contract.numbers import pluralize
from pipelines.device import consent, enrolment, limits, outbox, quota
from pipelines.device.collect import Collector, Progress
from pipelines.device.consent import Consent
from pipelines.device.enrolment import Enrolment
from pipelines.device.errors import DeviceError
from pipelines.device.redact import Redactor
from pipelines.device.retry import Clock, LaterError, OnRetry, Retry, Sleep, utc_now
from pipelines.device.spool import DamagedError, Sealed, Spool
from pipelines.device.state import CLOCK_OFFSET, Counts, State
from pipelines.failpoints import fp
from pipelines.home import BusyError, Home, exclusive
from pipelines.store import Store, StoreRefusedError, StoreRejectedError, StoreUnavailableError

RESEALS = 10  # batches that may be found damaged or refused in one shipping

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
    report_rows: int = 0
    """Of `rows` those that say what runs did: where there are no others, nothing was new."""
    quota: str = ""
    """What came of fetching the newest budgets."""
    next_try_at: datetime | None = None
    """The store was not asked: it did not answer or refused before, and is asked again at this time."""


def ship(
    home: Home,
    homes: Sequence[Path],
    *,
    store_url: str | None = None,
    progress: Progress | None = None,
    sleep: Sleep = time.sleep,
    clock: Clock = utc_now,
    when_full: WhenFull = "pause",
    is_forced: bool = False,
    on_retry: OnRetry | None = None,
) -> Shipped:
    """Ship once. Raises UsageError without consent, DeviceError if the disk is full or the store does not answer.

    A store that did not answer, or refused, is left alone until its time has come, unless `is_forced`. `on_retry` hears
    of every try that failed and is made again within this run: the error and the seconds until then.

    When the spool or the disk is full nothing new is read: the agents' own files keep it, so nothing is lost. By choice
    the oldest waiting batch is dropped instead, and counted.
    """
    enrolled = enrolment.require(home)
    try:
        with _granted_state(home, store_url or enrolled.store) as state, exclusive(home.device / "lock"):
            granted = consent.require(state)  # once more: it may have been withdrawn before we held the lock
            store = enrolment.open_store(home, store_url or enrolled.store)
            now = clock()
            retry = Retry(state, store.url, sleep, clock, is_forced=is_forced, on_retry=on_retry)
            redactor = Redactor(enrolment.tenant_key(home))
            problems: tuple[str, ...] = ()
            spool = Spool(home.device / "spool")
            full = limits.why_full(home.device, spool.size())
            collector = Collector(state, enrolled, redactor, granted, now=now, progress=progress, scratch=home.scratch)
            if full is None:
                collector.run(homes)
                problems = (*collector.problems, *_unread(collector.counted))
            else:
                collector.watch(homes)
                if when_full == "drop_oldest":
                    _drop_oldest(state, spool)
            spool.prune(now)
            shipped = Shipped(0, 0, 0, 0, store.url, paused=full, problems=problems)
            for _ in range(RESEALS):
                spool.seal_all(state, enrolled, granted, now)
                if (later := retry.not_before(datetime.fromisoformat(enrolled.enrolled_at))) is not None:
                    spool.sweep(state)
                    return replace(shipped, waiting=state.totals()["batches_waiting"], next_try_at=later)
                sent = deliver(state, spool, store, retry)
                batches, rows = shipped.batches + sent.batches, shipped.rows + sent.rows
                shipped = replace(
                    shipped, batches=batches, rows=rows, bytes=shipped.bytes + sent.bytes,
                    report_rows=shipped.report_rows + sent.report_rows,
                )  # fmt: skip
                if not sent.waiting:
                    said = _fetch_quota(home, state, enrolled, granted, store)
                    return replace(shipped, waiting=sent.waiting, quota=said)
            raise DeviceError("the spool is damaged again and again: check this disk, then ship again")
    except BusyError:
        raise DeviceError("another shipping of this device is running: wait for it to end") from None
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
    with consent.open_state(home) as state:
        if state is not None and (state.open_requests() or state.unconfirmed_requests()):
            _send_requests(home, state, store_url)
        if state is not None:
            _purge_after_withdrawal(home, state)
        consent.require(state)
        assert state is not None  # noqa: S101 - a grant lives in a state
        yield state


def _purge_after_withdrawal(home: Home, state: State) -> None:
    """A withdrawal that died after its step has left files in the spool: nothing of them may stay."""
    with suppress(BusyError), exclusive(home.device / "lock"):
        current = consent.current(state)
        if current is not None and current.state not in ("granted", "paused"):
            Spool(home.device / "spool").purge()


def _send_requests(home: Home, state: State, store_url: str) -> None:
    """A withdrawal goes out before anything else is looked at; if it cannot, the next shipping tries again."""
    with suppress(StoreUnavailableError, StoreRefusedError):
        store = enrolment.open_store(home, store_url)
        outbox.send(state, store)
        outbox.confirm(state, enrolment.require(home), store)


def deliver(state: State, spool: Spool, store: Store, retry: Retry) -> Shipped:
    """Put every sealed batch: its objects, then its manifest. Existing objects are as good as new ones.

    A batch with a damaged file is opened again, to be sealed anew from its rows; one that the store will never take is
    buried under a tombstone. Raises DeviceError if the store does not answer or refuses; what was delivered stays
    delivered.
    """
    spool.sweep(state)
    batches = rows = size = reports = 0
    for batch in list(spool.sealed(state)):
        try:
            _put(batch, store, retry)
        except DamagedError:
            with state.step():
                state.reopen(batch.seq)
            break  # those after it hold the hash of its manifest
        except StoreRejectedError as error:
            if batch.is_tombstone:
                raise _left_for_later(state, retry, batch, error) from error  # nothing smaller could take its place
            spool.write_tombstone(state, batch, str(error).rpartition(": ")[2])
            break
        except (LaterError, StoreRefusedError) as error:
            raise _left_for_later(state, retry, batch, error) from error
        fp("deliver.put")
        with state.step():
            state.delivered(batch.seq, datetime.now(UTC))
            retry.delivered()
            if store.clock_offset is not None:
                state.set_value(CLOCK_OFFSET, str(round(store.clock_offset)))
        fp("deliver.marked")
        spool.finish(batch)
        fp("deliver.finished")
        batches, rows, size = batches + 1, rows + batch.rows, size + batch.size
        reports += batch.report_rows
    return Shipped(batches, rows, size, state.totals()["batches_waiting"], store.url, report_rows=reports)


def _left_for_later(state: State, retry: Retry, batch: Sealed, error: Exception) -> DeviceError:
    """What a person is told when the rest must wait; a refusal is written down here, a failure was already."""
    if isinstance(error, StoreRefusedError):
        retry.refused(batch.seq)
    trouble = state.trouble(retry.url)
    again = f" from {trouble.next_at:%Y-%m-%d %H:%M:%S} UTC on" if trouble else ""
    waiting = state.totals()["batches_waiting"]
    return DeviceError(
        f"{error}; {pluralize(waiting, 'batch waits', 'batches wait')} safely in the spool, the store is asked again"
        f"{again}: ship again then, or at once with --now"
    )


def _unread(counted: Sequence[Counts]) -> list[str]:
    """One line for each way in which sources could not be read."""
    outcomes = TallyOf(counts.outcome for counts in counted if counts.outcome != "read")
    return [
        f"{pluralize(number, 'file')} could not be read ({outcome.replace('_', ' ')}); the rest went on"
        for outcome, number in sorted(outcomes.items())
    ]


def _drop_oldest(state: State, spool: Spool) -> None:
    """By the owner's choice: the oldest waiting batch gives its place to what comes."""
    oldest = next(spool.sealed(state), None)
    if oldest is not None and not oldest.is_tombstone:
        spool.write_tombstone(state, oldest, "dropped_when_full")


def _put(batch: Sealed, store: Store, retry: Retry) -> None:
    """Put the files of a batch in their order. Raises LaterError, StoreRefusedError, DamagedError."""
    stored = retry.begin(batch.seq)
    for file in batch.files:
        data = file.read()
        while file.key not in stored:
            try:
                fp("put.before")
                store.put(file.key, data)
                fp("put.after")
                retry.worked(file.key)
                break
            except StoreUnavailableError as error:
                retry.failed(batch.seq, error)
