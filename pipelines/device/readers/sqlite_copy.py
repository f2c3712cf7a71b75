"""A private copy of a SQLite database that cannot be opened where it lies: a read-only folder, a network's file system.

Its log is copied with it and replayed by SQLite in the copy; `immutable` would ignore the log. The copy holds what no
batch may, so it lives in a folder of its own that nobody else can enter, for as long as it is read, and what a killed
process left there goes before the next one is made. Does not belong here: what is read of it.
"""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from pipelines.device.lines import UnreadableError, open_plain
from pipelines.home import private_folder

MAX_BYTES = 256 << 20  # far above any colony's; a larger one would fill the disk that we must not fill
BLOCK = 1 << 20


def remove(scratch: Path) -> None:
    """Remove what a process that died has left."""
    shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def opened(path: Path, scratch: Path) -> Iterator[sqlite3.Connection]:
    """A connection to a copy of a database in the folder `scratch`, which is gone afterwards.

    Raises UnreadableError if the database or its log changed meanwhile or is too large, sqlite3.DatabaseError if the
    copy is broken, OSError.
    """
    remove(scratch)
    try:
        private_folder(scratch)
        os.chmod(scratch, 0o700)  # noqa: PTH101 - whatever the umask
        originals = [path, *(beside(path, end) for end in ("-wal", "-journal"))]
        before = [_signature(original) for original in originals]
        if sum(signature[2] for signature in before if signature) > MAX_BYTES:
            raise UnreadableError("too large to copy")
        for original, signature in zip(originals, before, strict=True):
            if signature is not None:
                _copy(original, scratch / original.name)
        if [_signature(original) for original in originals] != before:
            raise UnreadableError("written to while it was copied")
        with closing(sqlite3.connect(scratch / path.name, isolation_level=None)) as connection:
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise UnreadableError("the copy is not whole")
            yield connection
    finally:
        remove(scratch)


def beside(path: Path, end: str) -> Path:
    """A file that SQLite keeps beside a database."""
    return path.with_name(path.name + end)


def _signature(path: Path) -> tuple[int, int, int, int] | None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _copy(source: Path, target: Path) -> None:
    with (
        open_plain(source) as reading,
        open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as writing,  # noqa: PTH123
    ):
        shutil.copyfileobj(reading, writing, BLOCK)
