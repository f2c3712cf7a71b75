"""Reading a SQLite database that an agent writes meanwhile: short reads that change nothing and hold nobody up.

A read-only connection cannot change it; if nobody has it open (no `-wal` beside it), it is read from memory, so that
SQLite makes no file of its own beside the user's. Where neither works a private copy is read (sqlite_copy.py). Never
`immutable`: that ignores the log and shows an old state. Does not belong here: which tables a runtime has.
"""

import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from pipelines.device.lines import UnreadableError, open_plain
from pipelines.device.readers import sqlite_copy
from pipelines.device.readers.base import CorruptError, UnknownLayoutError

MAX_IN_MEMORY = 64 << 20
MAX_READ_SECONDS = 1.0  # a reader keeps the agents' log from being folded in: beyond this a copy is read instead
# It cannot be opened where it lies (no `-shm` can be made, a network's locks fail), or it was held for too long.
COPIED_AFTER = ("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_IOERR", "SQLITE_PROTOCOL", "SQLITE_INTERRUPT")
BUSY_MILLISECONDS = 250  # an agent waiting for us would be worse than an observation that comes 15 minutes later
FUNCTIONS = frozenset({"instr"})

Values = dict[str, object]
Allowed = Mapping[str, frozenset[str]]
"""The tables that may be read, and of each the columns."""
T = TypeVar("T")


def read(path: Path, scratch: Path, allowed: Allowed, reading: Callable[[sqlite3.Connection], T]) -> T:
    """What `reading` finds in one transaction. SQLite itself denies every table and column that is not allowed.

    `scratch`: a folder of ours for a copy, should the database not open where it lies, or not let go in time.
    Raises UnreadableError, UnknownLayoutError, CorruptError, FileNotFoundError.
    """
    try:
        try:
            with closing(_open(path)) as connection:
                return _read(connection, allowed, reading)
        except sqlite3.OperationalError as error:
            if not (error.sqlite_errorname or "").startswith(COPIED_AFTER):
                raise
        with sqlite_copy.opened(path, scratch) as connection:
            return _read(connection, allowed, reading)
    except sqlite3.Error as error:
        name = error.sqlite_errorname or ""
        is_corrupt = name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB"))
        raise (CorruptError if is_corrupt else UnreadableError)(name) from None
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UnreadableError(error.strerror) from None


def columns(connection: sqlite3.Connection, table: str, allowed: Allowed, required: frozenset[str]) -> list[str]:
    """The allowed columns that this version of a table has. Raises UnknownLayoutError if a required one is missing."""
    present = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
    if not required <= present:
        raise UnknownLayoutError(table)
    return sorted(allowed[table] & present)


def has_table(connection: sqlite3.Connection, table: str) -> bool:
    """Whether the database has a table."""
    return connection.execute(f"PRAGMA table_info({table})").fetchone() is not None


def rows(
    connection: sqlite3.Connection, table: str, allowed: Allowed, required: frozenset[str], rest: str = ""
) -> Iterator[Values]:
    """The allowed columns of a table, row by row; those that this version of it lacks are None."""
    names = columns(connection, table, allowed, required)
    for row in connection.execute(f"SELECT {', '.join(names)} FROM {table} {rest}"):
        yield dict.fromkeys(allowed[table]) | dict(zip(names, row, strict=True))


def _read(connection: sqlite3.Connection, allowed: Allowed, reading: Callable[[sqlite3.Connection], T]) -> T:
    connection.execute("PRAGMA query_only = ON")
    # A model may write here with a shell: one byte that is no UTF-8 must not cost the whole database.
    connection.text_factory = lambda text: text.decode("utf-8", "replace")
    connection.execute("BEGIN")
    connection.set_authorizer(lambda *asked: _judge(allowed, *asked))
    found = reading(connection)
    connection.set_authorizer(None)
    connection.execute("COMMIT")
    return found


def _judge(allowed: Allowed, action: int, first: str | None, second: str | None, *_: object) -> int:
    if action == sqlite3.SQLITE_SELECT:
        return sqlite3.SQLITE_OK
    columns = allowed.get(first or "", frozenset())
    if action == sqlite3.SQLITE_READ and columns and (second in columns or second == ""):
        return sqlite3.SQLITE_OK  # no column at all: `count(*)`
    if action == sqlite3.SQLITE_FUNCTION and second in FUNCTIONS:
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_PRAGMA and first == "table_info":
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


def _open(path: Path) -> sqlite3.Connection:
    in_memory = _quiet_copy(path)
    if in_memory is not None:
        connection = sqlite3.connect(":memory:", isolation_level=None)
        if in_memory:  # a file without a byte is a database without a table; SQLite takes it for a lack of memory
            connection.deserialize(in_memory)
        return connection
    address = f"file:{quote(os.fsencode(path.absolute()))}?mode=ro"
    connection = sqlite3.connect(address, uri=True, isolation_level=None, timeout=BUSY_MILLISECONDS / 1000)
    end = time.monotonic() + MAX_READ_SECONDS
    connection.set_progress_handler(lambda: time.monotonic() > end, 10_000)
    return connection


def _quiet_copy(path: Path) -> bytes | None:
    """The bytes of a database that nobody has open, or None if somebody may."""
    log = path.with_name(path.name + "-wal")
    for beside in (log, path.with_name(path.name + "-shm"), path.with_name(path.name + "-journal")):
        # SQLite would follow a link and wait for a pipe.
        if os.path.lexists(beside) and not stat.S_ISREG(beside.lstat().st_mode):
            raise UnreadableError("not a plain file")
    journal = sqlite_copy.beside(path, "-journal")
    if log.exists() or (journal.exists() and journal.stat().st_size):  # what it would undo is still in the database
        return None
    with open_plain(path) as file:
        before = os.fstat(file.fileno())
        if before.st_size > MAX_IN_MEMORY:
            return None
        data = bytearray(file.read())
        after = os.fstat(file.fileno())
    if log.exists() or (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        return None
    if data[18:20] == b"\x02\x02":
        data[18:20] = b"\x01\x01"  # a database in memory has no log beside it: it must not be told to look for one
    return bytes(data)
