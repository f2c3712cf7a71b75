"""A colony's progress.db: the states of tasks, steps and checklist items, by short reads of allow-listed columns.

Does not belong here: how a database is opened that the agents write meanwhile (sqlite.py); tracker.db, which is the
user's data and never opened.
"""

from collections.abc import Iterator
from pathlib import Path
from sqlite3 import Connection

from pipelines.contract import wire
from pipelines.contract.keys import Constant
from pipelines.device.clock import utc_time
from pipelines.device.readers import sqlite
from pipelines.device.readers.base import Item

TASK = (
    "id", "seq", "priority", "status", "worker_id", "claimed_at", "started_at", "completed_at", "created_at",
    "updated_at", "retry_count", "max_retries", "last_error", "parent_task_id", "source",
)  # fmt: skip
TASK_NAMES = {"parent_task_id": "parent_task_id", "created_by": "source", "error_class": "last_error"}
STEP = ("id", "task_id", "seq", "status", "worker_id", "started_at", "completed_at")
CHECK = ("id", "task_id", "required", "done_at", "done_by")

ALLOWED: sqlite.Allowed = {"tasks": frozenset(TASK), "steps": frozenset(STEP), "sop_checklist": frozenset(CHECK)}


def read(path: Path, *, list_id: str, colony_name: str, scratch: Path) -> list[Item]:
    """Every task, step and checklist item. Raises UnreadableError, UnknownLayoutError, CorruptError.

    `scratch`: a folder of ours for a copy, should the database not open where it lies, or not let go in time.
    """
    return sqlite.read(path, scratch, ALLOWED, lambda connection: list(_items(connection, list_id, colony_name)))


def _items(connection: Connection, list_id: str, colony_name: str) -> Iterator[Item]:
    def item(kind: str, task_id: object, item_id: object, values: sqlite.Values, updated: dict[str, object]) -> Item:
        times = {name: utc_time(value) for name, value in updated.items()}
        base: sqlite.Values = {"list_id": list_id, "task_id": task_id, "item_id": item_id, "colony_name": colony_name}
        base |= {"item": kind, "list_kind": "progress_db"}
        # A model writes it with a shell: `Done` is done.
        status = values["status"]
        base |= values | {"status": status.strip().lower() if isinstance(status, str) else status}
        key = (Constant("progress_db"), list_id, Constant(kind), task_id, item_id)
        # A task that was changed since a consent tells nothing of a step that was done before.
        own = [time for name, time in times.items() if name != "updated_at" and time]
        return Item(wire.TASKS, key, base | times, tuple(own if kind != "task" and own else times.values()))

    task_updated: dict[object, object] = {}
    for row in sqlite.rows(connection, "tasks", ALLOWED, frozenset({"id", "status"}), "ORDER BY id"):
        task_updated[row["id"]] = row["updated_at"]
        values = {name: row[name] for name in ("seq", "priority", "worker_id", "status", "retry_count", "max_retries")}
        values |= {name: row[source] for name, source in TASK_NAMES.items()}
        times = ("created_at", "claimed_at", "started_at", "completed_at", "updated_at")
        yield item("task", row["id"], None, values, {name: row[name] for name in times})
    for row in sqlite.rows(connection, "steps", ALLOWED, frozenset({"id", "task_id"}), "ORDER BY id"):
        values = {name: row[name] for name in ("seq", "worker_id", "status")}
        step_times = {name: row[name] for name in ("started_at", "completed_at")}
        step_times["updated_at"] = task_updated.get(row["task_id"])
        yield item("step", row["task_id"], row["id"], values, step_times)
    for row in sqlite.rows(connection, "sop_checklist", ALLOWED, frozenset({"id", "task_id"}), "ORDER BY id"):
        status = "done" if row["done_at"] else "pending"
        values = {"worker_id": row["done_by"], "is_required": bool(row["required"]), "status": status}
        check_times = {"completed_at": row["done_at"], "updated_at": task_updated.get(row["task_id"])}
        yield item("checklist", row["task_id"], row["id"], values, check_times)
