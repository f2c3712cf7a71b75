"""The one lock of a warehouse: whoever writes it holds this file, from a terminal as from Dagster.

The system lets go of it when its process ends, however it ends. Does not belong here: the lock files of other parts
(home.py), runs that ended without a word (defs/orphaned_runs.py).
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from pipelines.home import BusyError, exclusive

POLL_SECONDS = 0.5
_held: set[Path] = set()


@dataclass(frozen=True)
class Holder:
    """Who holds the lock, as far as the holder wrote it down."""

    name: str
    pid: int
    since: str

    def __str__(self) -> str:
        return f"{self.name} (process {self.pid}, since {self.since} UTC)"


def path_of(warehouse: Path) -> Path:
    """The lock file of a warehouse file."""
    return warehouse.with_name("lock")


def holder(lock: Path) -> Holder | None:
    """Who took the lock last; None if nobody wrote it down. Whether it is still held, only taking it can tell."""
    with suppress(OSError, ValueError, TypeError):
        return Holder(**json.loads(lock.read_text("utf-8")))
    return None


@contextmanager
def hold(lock: Path, name: str, *, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold the lock; a second time within one process adds its name to what others are told.

    `waiting` is told once who holds it, and the call waits until that one ends; without it raises BusyError at once.
    """
    if lock in _held:
        outer = holder(lock)
        if outer is not None:
            _write(lock, replace(outer, name=f"{outer.name}, {name}"))
        try:
            yield
        finally:
            _write(lock, outer)
        return
    with _taken(lock, waiting):
        _write(lock, Holder(name, os.getpid(), f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}"))
        _held.add(lock)
        try:
            yield
        finally:
            _held.discard(lock)
            _write(lock, None)


@contextmanager
def _taken(lock: Path, waiting: Callable[[str], None] | None) -> Iterator[None]:
    has_told = False
    while True:
        taken = exclusive(lock)
        try:
            taken.__enter__()
            break
        except BusyError:
            if waiting is None:
                raise BusyError(str(holder(lock) or "another process")) from None
        if not has_told:
            waiting(f"the warehouse is in use by {holder(lock) or 'another process'}: waiting until it ends")
            has_told = True
        time.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        taken.__exit__(None, None, None)


def _write(lock: Path, who: Holder | None) -> None:
    """In place: a file that took its name would be another lock."""
    with suppress(OSError):
        lock.write_text(json.dumps(asdict(who)) if who else "", "utf-8")
