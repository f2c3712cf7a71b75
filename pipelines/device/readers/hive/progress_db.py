"""A colony's progress.db: the states of tasks, steps and checklist items, by short reads of allow-listed columns.

The agents write it while we read. A read-only connection cannot change it; if nobody has it open (no `-wal` beside
it), it is read from memory, so that SQLite makes no file of its own beside the user's. Where neither works a private
copy is read (sqlite_copy.py). Never `immutable`: that ignores the log and shows an old state.
Does not belong here: tracker.db, which is the user's data and never opened.
"""

import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from pipelines.contract import wire
from pipelines.device.clock import utc_time
from pipelines.device.lines import UnreadableError, open_plain
from pipelines.device.readers import sqlite_copy
from pipelines.device.readers.base import CorruptError, Item, UnknownLayoutError

MAX_IN_MEMORY = 64 << 20
MAX_READ_SECONDS = 1.0  # a reader keeps the agents' log from being folded in: beyond this a copy is read instead
# It cannot be opened where it lies (no `-shm` can be made, a network's locks fail), or it was held for too long.
COPIED_AFTER = ("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_IOERR", "SQLITE_PROTOCOL", "SQLITE_INTERRUPT")
BUSY_MILLISECONDS = 250  # an agent waiting for us would be worse than an observation that comes 15 minutes later

TASK = (
    "id", "seq", "priority", "status", "worker_id", "claimed_at", "started_at", "completed_at", "created_at",
    "updated_at", "retry_count", "max_retries", "last_error", "parent_task_id", "source",
)  # fmt: skip
TASK_NAMES = {"parent_task_id": "parent_task_id", "created_by": "source", "error_class": "last_error"}
STEP = ("id", "task_id", "seq", "status", "worker_id", "started_at", "completed_at")
CHECK = ("id", "task_id", "required", "done_at", "done_by")

Values = dict[str, object]


def read(path: Path, *, list_id: str, colony_name: str, scratch: Path) -> list[Item]:
    """Every task, step and checklist item. Raises UnreadableError, UnknownLayoutError, CorruptError.

    `scratch`: a folder of ours for a copy, should the database not open where it lies, or not let go in time.
    """
    try:
        try:
            with closing(_open(path)) as connection:
                return _read(connection, list_id, colony_name)
        except sqlite3.OperationalError as error:
            if not (error.sqlite_errorname or "").startswith(COPIED_AFTER):
                raise
        with sqlite_copy.opened(path, scratch) as connection:
            return _read(connection, list_id, colony_name)
    except sqlite3.Error as error:
        name = error.sqlite_errorname or ""
        is_corrupt = name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB"))
        raise (CorruptError if is_corrupt else UnreadableError)(name) from None
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UnreadableError(error.strerror) from None


def _read(connection: sqlite3.Connection, list_id: str, colony_name: str) -> list[Item]:
    connection.execute("PRAGMA query_only = ON")
    # A model writes here with a shell: one byte that is no UTF-8 must not cost the whole database.
    connection.text_factory = lambda text: text.decode("utf-8", "replace")
    connection.execute("BEGIN")
    items = list(_items(connection, list_id, colony_name))
    connection.execute("COMMIT")
    return items


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


def _items(connection: sqlite3.Connection, list_id: str, colony_name: str) -> Iterator[Item]:
    def item(kind: str, task_id: object, item_id: object, values: Values, updated: dict[str, object]) -> Item:
        times = {name: utc_time(value) for name, value in updated.items()}
        base: Values = {"list_id": list_id, "task_id": task_id, "item_id": item_id, "colony_name": colony_name}
        base |= {"item": kind, "list_kind": "progress_db"}
        return Item(
            wire.TASKS, ("progress_db", list_id, kind, task_id, item_id), base | values | times, (*times.values(),)
        )

    task_updated: dict[object, object] = {}
    for row in _rows(connection, "tasks", TASK, required={"id", "status"}):
        task_updated[row["id"]] = row["updated_at"]
        values = {name: row[name] for name in ("seq", "priority", "worker_id", "status", "retry_count", "max_retries")}
        values |= {name: row[source] for name, source in TASK_NAMES.items()}
        times = ("created_at", "claimed_at", "started_at", "completed_at", "updated_at")
        yield item("task", row["id"], None, values, {name: row[name] for name in times})
    for row in _rows(connection, "steps", STEP, required={"id", "task_id"}):
        values = {name: row[name] for name in ("seq", "worker_id", "status")}
        step_times = {name: row[name] for name in ("started_at", "completed_at")}
        step_times["updated_at"] = task_updated.get(row["task_id"])
        yield item("step", row["task_id"], row["id"], values, step_times)
    for row in _rows(connection, "sop_checklist", CHECK, required={"id", "task_id"}):
        status = "done" if row["done_at"] else "pending"
        values = {"worker_id": row["done_by"], "is_required": bool(row["required"]), "status": status}
        check_times = {"completed_at": row["done_at"], "updated_at": task_updated.get(row["task_id"])}
        yield item("checklist", row["task_id"], row["id"], values, check_times)


def _rows(connection: sqlite3.Connection, table: str, wanted: tuple[str, ...], required: set[str]) -> Iterator[Values]:
    """The wanted columns of a known table; those that this version of it lacks are None."""
    present = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
    if not required <= present:
        raise UnknownLayoutError(table)
    columns = [name for name in wanted if name in present]
    for row in connection.execute(f"SELECT {', '.join(columns)} FROM {table} ORDER BY id"):
        yield dict.fromkeys(wanted) | dict(zip(columns, row, strict=True))
