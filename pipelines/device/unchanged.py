"""The file sets in which the last pass found nothing to do: while their files stay as they are, none of them is opened,
and nothing is looked up for them in the state.

A pass over a file set is decided by its files, by what the state holds of it and by the consent. What the state holds
is changed by such a pass alone; the rest is in a digest. So the same digest means that there is nothing to do again.
Does not belong here: what there is to do for a file set (collect.py).
"""

import hashlib
import struct
import time

from pipelines.device.readers.base import FileSet
from pipelines.device.state import State

_ENTRY = struct.Struct("16sH")
CLOCK_TICK_NS = 2_000_000_000  # no file system's clock is coarser: within a tick a file may change and keep its time


class Unchanged:
    """Those of one home. `key`: of the digests, which are made of paths; another one where the consent, the program or
    anything else that no file tells has changed."""

    def __init__(self, state: State, home: str, key: str) -> None:
        self._state, self._home, self._key = state, home, key.encode()
        self._before: dict[bytes, int] = dict(_ENTRY.iter_unpack(state.unchanged(home)))
        self._now: dict[bytes, int] = {}
        self._settled_ns = time.time_ns() - CLOCK_TICK_NS

    def digest(self, files: FileSet, *, is_live: bool) -> bytes:
        """What a file set is known by. `is_live`: whether its snapshots may leave without history."""
        text = f"{files.path}\0{files.said}\0{files.state.text}\0{is_live}"
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), key=self._key, digest_size=16).digest()

    def sources(self, digest: bytes) -> int | None:
        """How many logs are in a file set for which there is nothing to do; None if that is not known of it."""
        found = self._before.get(digest)
        if found is not None:
            self._now[digest] = found
        return found

    def keep(self, files: FileSet, digest: bytes, sources: int) -> None:
        """There was nothing to do for a file set."""
        if files.state.changed_ns < self._settled_ns:
            self._now[digest] = sources

    def save(self) -> None:
        """Keep them for the next pass."""
        if self._now != self._before:
            self._state.set_unchanged(self._home, b"".join(_ENTRY.pack(*entry) for entry in self._now.items()))
