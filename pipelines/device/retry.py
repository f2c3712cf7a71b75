"""When the store is asked again: a batch has no limit of tries, and what is known of them outlives the process.

A failure waits longer each time, with full jitter, so that a fleet which lost the store together does not come back
together; a refusal opens a breaker that asks once an hour. Nothing is ever dropped for it.
Does not belong here: sending (ship.py), the numbers (limits.py).
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from pipelines.device import limits
from pipelines.device.state import State, Trouble
from pipelines.store import StoreUnavailableError

Sleep = Callable[[float], None]
OnRetry = Callable[[str, float], None]
Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """This machine's time."""
    return datetime.now(UTC)


class LaterError(Exception):
    """The store will be asked again at another time, in another run."""


@dataclass
class Retry:
    """The tries of one run at one store. `is_forced`: ask now, whatever was said before."""

    state: State
    url: str
    sleep: Sleep = time.sleep
    clock: Clock = utc_now
    is_forced: bool = False
    on_retry: OnRetry | None = None
    _waited: float = 0.0
    _batches: int = 0
    _stored: list[str] = field(default_factory=list)

    def not_before(self, enrolled_at: datetime) -> datetime | None:
        """When the store may be asked again; None: now.

        A device that was enrolled anew since the store refused it may ask at once: it may have other credentials.
        """
        trouble = self.state.trouble(self.url)
        now = self.clock()
        if trouble is None or self.is_forced or (trouble.is_refused and enrolled_at > trouble.since):
            return None
        # Further away than any delay of ours: the clock has been set back.
        if trouble.next_at - now > timedelta(seconds=limits.MAX_RETRY_AFTER_SECONDS):
            return None
        return trouble.next_at if trouble.next_at > now else None

    def begin(self, seq: int) -> frozenset[str]:
        """Wait for a batch's turn: a backlog goes out at a measured pace. Keys of it that are in the store already."""
        self._batches += 1
        if self._batches > limits.UPLOADS_PER_MINUTE and not self.url.startswith("file:"):
            self.sleep(60 / limits.UPLOADS_PER_MINUTE)
        trouble = self.state.trouble(self.url)
        self._stored = list(trouble.stored) if trouble and trouble.seq == seq else []
        return frozenset(self._stored)

    def worked(self, key: str) -> None:
        """An object is in the store."""
        self._stored.append(key)
        trouble = self.state.trouble(self.url)
        if trouble is not None and (trouble.failures or trouble.is_refused):
            with self.state.step():  # it answers: the next delay begins small again
                self._keep(trouble.seq, trouble.tries, 0, self.clock(), since=trouble.since)

    def failed(self, seq: int, error: StoreUnavailableError) -> None:
        """A put failed. Returns when it may be tried again in this run; raises LaterError if that is not soon."""
        trouble = self.state.trouble(self.url)
        is_same = trouble is not None and trouble.seq == seq
        tries = (trouble.tries if trouble and is_same else 0) + 1
        failures = (trouble.failures if trouble else 0) + 1
        longest = min(limits.MAX_DELAY_SECONDS, limits.FIRST_DELAY_SECONDS * 2 ** min(failures - 1, 30))
        delay = random.uniform(0, longest)  # noqa: S311 - jitter, no secret
        if error.retry_after is not None:
            delay = max(delay, min(error.retry_after, limits.MAX_RETRY_AFTER_SECONDS))
        now = self.clock()
        with self.state.step():
            since = trouble.since if trouble else now
            self._keep(seq, tries, failures, now + timedelta(seconds=delay), since=since)
        if self._waited + delay > limits.PATIENCE_SECONDS:
            raise LaterError(str(error))
        self._waited += delay
        if self.on_retry is not None:
            self.on_retry(str(error), delay)
        self.sleep(delay)

    def refused(self, seq: int) -> None:
        """The store said no to whoever asks: the breaker opens, or stays open."""
        trouble, now = self.state.trouble(self.url), self.clock()
        tries = trouble.tries if trouble and trouble.seq == seq else 0
        since = trouble.since if trouble and trouble.is_refused else now
        next_at = now + timedelta(seconds=limits.BREAKER_SECONDS)
        with self.state.step():
            self._keep(seq, tries + 1, 0, next_at, since=since, is_refused=True)

    def delivered(self) -> None:
        """A batch is in the store: within the step that says so, its trouble is forgotten."""
        self._stored = []
        self.state.set_trouble(self.url, None)

    def _keep(
        self, seq: int, tries: int, failures: int, next_at: datetime, *, since: datetime, is_refused: bool = False
    ) -> None:
        self.state.set_trouble(self.url, Trouble(seq, next_at, since, tries, failures, is_refused, tuple(self._stored)))
