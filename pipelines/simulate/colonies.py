"""What a colony keeps beside its sessions: records, task lists and databases.

Knows nothing about turns.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pipelines.simulate.home_context import HomeContext
from pipelines.simulate.words import Json

# The names and the missing CHECKs are Hive's: any text can stand in a status.
_PROGRESS = """
CREATE TABLE tasks (
    id TEXT PRIMARY KEY, seq INTEGER, priority INTEGER NOT NULL DEFAULT 0, goal TEXT NOT NULL, payload TEXT,
    status TEXT NOT NULL DEFAULT 'pending', worker_id TEXT, claim_token TEXT, claimed_at TEXT, started_at TEXT,
    completed_at TEXT, created_at TEXT NOT NULL, updated_at TEXT NOT NULL, retry_count INTEGER NOT NULL DEFAULT 0,
    max_retries INTEGER NOT NULL DEFAULT 3, last_error TEXT,
    parent_task_id TEXT REFERENCES tasks(id) ON DELETE SET NULL, source TEXT);
CREATE TABLE steps (
    id TEXT PRIMARY KEY, task_id TEXT NOT NULL REFERENCES tasks(id) ON DELETE CASCADE, seq INTEGER NOT NULL,
    title TEXT NOT NULL, detail TEXT, status TEXT NOT NULL DEFAULT 'pending', evidence TEXT, worker_id TEXT,
    started_at TEXT, completed_at TEXT, UNIQUE (task_id, seq));
CREATE TABLE sop_checklist (
    id TEXT PRIMARY KEY, task_id TEXT NOT NULL REFERENCES tasks(id) ON DELETE CASCADE, key TEXT NOT NULL,
    description TEXT NOT NULL, required INTEGER NOT NULL DEFAULT 1, done_at TEXT, done_by TEXT, note TEXT,
    UNIQUE (task_id, key));
CREATE TABLE colony_meta (key TEXT PRIMARY KEY, value TEXT NOT NULL, updated_at TEXT NOT NULL);
CREATE INDEX idx_tasks_claimable ON tasks(status, priority DESC, seq, created_at) WHERE status = 'pending';
CREATE INDEX idx_steps_task_seq ON steps(task_id, seq);
CREATE INDEX idx_sop_required_open ON sop_checklist(task_id, required, done_at);
CREATE INDEX idx_tasks_status ON tasks(status, updated_at);
PRAGMA user_version = 1;
"""
_TRACKER = """
CREATE TABLE _tracker_registry (
    table_name TEXT PRIMARY KEY, write_columns TEXT NOT NULL, key_columns TEXT NOT NULL, mode TEXT NOT NULL,
    registered_at TEXT NOT NULL);
CREATE TABLE _tracker_meta (key TEXT PRIMARY KEY, value TEXT NOT NULL, updated_at TEXT NOT NULL);
CREATE TABLE orders (email TEXT PRIMARY KEY, status TEXT, note TEXT, updated_at TEXT);
PRAGMA user_version = 3;
"""
_PLAYBOOK = """
CREATE TABLE playbook_runs (
    run_id TEXT PRIMARY KEY, name TEXT, status TEXT NOT NULL, dispatched INTEGER NOT NULL DEFAULT 0,
    dead_lettered INTEGER NOT NULL DEFAULT 0, error TEXT, result_json TEXT, logs_json TEXT, created_at TEXT NOT NULL);
"""
_STATUSES = ("pending", "pending", "claimed", "done", "done", "done", "failed", "in_progress", "completed", "started")


def _database(
    context: HomeContext,
    path: str,
    at: datetime,
    *,
    schema: str,
    early: Callable[[sqlite3.Connection], None],
    late: Callable[[sqlite3.Connection], None],
    keep_wal: bool,
) -> None:
    """`early` reaches the main file, `late` only the WAL when it is kept.

    The files are copied away while the connection is open: closing it would fold the WAL into the main file.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "made.db"
        with closing(sqlite3.connect(file)) as database:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA wal_autocheckpoint=0")
            database.executescript(schema)
            early(database)
            database.commit()
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            late(database)
            database.commit()
            if not keep_wal:
                database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            target = context.disk.root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            for suffix in ("", "-wal", "-shm") if keep_wal else ("",):
                copied = Path(f"{target}{suffix}")
                shutil.copyfile(f"{file}{suffix}", copied)
                context.disk.date(copied, at)


def _zoned(at: datetime) -> str:
    return at.astimezone(UTC).replace(microsecond=0).isoformat()


def _bare(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def progress_database(context: HomeContext, path: str, *, workers: Sequence[str], at: datetime, keep_wal: bool) -> None:
    """progress.db. Every task is pending in the main file; what became of it is in the WAL."""
    words, rng = context.words, context.rng
    odd = ("Blocked ", f"waits for {words.tag('task-status')}")
    statuses = (*_STATUSES, *odd)
    ids = [context.task_id() for _ in statuses]

    def early(database: sqlite3.Connection) -> None:
        database.execute("INSERT INTO colony_meta VALUES ('schema_version', '1', ?)", (_zoned(at),))
        for number, task in enumerate(ids[:-1]):
            _insert_task(number, task, database)

    def _insert_task(number: int, task: str, database: sqlite3.Connection) -> None:
        created = at + timedelta(seconds=number)
        stamp = _zoned(created) if number % 2 else _bare(created)
        source = ("queen_create", "create_colony_auto", "enqueue_tool")[number % 3]
        payload = f'{{"link": "https://{words.mark("task-payload")}.example"}}'
        parent = ids[0] if number == 3 else None
        database.execute(
            "INSERT INTO tasks (id, seq, priority, goal, payload, created_at, updated_at, parent_task_id, source)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (task, number, number % 3, words.text("task-goal"), payload, stamp, stamp, parent, source),
        )
        for step, state in enumerate(("done", "in_progress", "pending")[number % 3 :], start=1):
            values = (context.task_id(), task, step, words.text("step-title"), words.path("step-detail"), state)
            database.execute(
                "INSERT INTO steps (id, task_id, seq, title, detail, status) VALUES (?, ?, ?, ?, ?, ?)", values
            )
        item = (context.task_id(), task, "sent", words.text("checklist"), _bare(created), words.tag("checklist-by"))
        database.execute(
            "INSERT INTO sop_checklist (id, task_id, key, description, done_at, done_by) VALUES (?, ?, ?, ?, ?, ?)",
            item,
        )

    def late(database: sqlite3.Connection) -> None:
        _insert_task(len(ids) - 1, ids[-1], database)
        for number, (task, status) in enumerate(zip(ids, statuses, strict=True)):
            context.tally.tasks[status] += 1
            if status == "pending":
                continue
            claimed = at + timedelta(minutes=5 + number)
            ended = claimed + timedelta(seconds=rng.randint(30, 900))
            worker = words.tag("task-worker") if number == 4 else rng.choice(workers)
            database.execute(
                "UPDATE tasks SET status = ?, worker_id = ?, claim_token = ?, claimed_at = ?, completed_at = ?,"
                " updated_at = ?, retry_count = ?, last_error = ? WHERE id = ?",
                (
                    status,
                    worker,
                    context.hex(20),
                    _bare(claimed),
                    _bare(ended) if status in {"done", "completed"} else None,
                    _zoned(ended) if number % 2 else _bare(ended),
                    2 if status == "failed" else 0,
                    words.error("task-error") if status == "failed" else None,
                    task,
                ),
            )

    _database(context, path, at, schema=_PROGRESS, early=early, late=late, keep_wal=keep_wal)


def tracker_database(context: HomeContext, path: str, *, at: datetime, keep_wal: bool) -> None:
    """tracker.db: the user's own business rows. Never to be read."""
    words = context.words

    def early(database: sqlite3.Connection) -> None:
        database.execute("INSERT INTO _tracker_meta VALUES ('schema_version', '3', ?)", (_zoned(at),))

    def late(database: sqlite3.Connection) -> None:
        for _ in range(5):
            row = (words.address(), "won", words.text("tracker-note"), _bare(at))
            database.execute("INSERT OR REPLACE INTO orders VALUES (?, ?, ?, ?)", row)

    _database(context, path, at, schema=_TRACKER, early=early, late=late, keep_wal=keep_wal)


def playbook_database(context: HomeContext, path: str, *, at: datetime) -> None:
    """colony.db: what a colony's scripts did, results and errors included."""
    words = context.words

    def early(database: sqlite3.Connection) -> None:
        for number, status in enumerate(("done", "error")):
            error = words.error("playbook-error") if status == "error" else None
            row = (f"pb_{number}", "nightly", status, 3, number, error, words.text("playbook-result"), "[]", _zoned(at))
            database.execute("INSERT INTO playbook_runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)

    _database(context, path, at, schema=_PLAYBOOK, early=early, late=lambda database: None, keep_wal=False)


def task_list(context: HomeContext, folder: str, *, list_id: str | None, owner: str, at: datetime) -> None:
    """tasks.json of a session, a worker or (with a list id that says so) a colony's template."""
    words = context.words
    statuses = ["pending", "in_progress", "completed", "pending"]
    if context.layout == "v3":
        statuses += ["abandoned", "archived"]
    meta: Json = {"role": "session", "creator_agent_id": owner, "created_at": at.timestamp(), "schema_version": 1}
    if list_id is not None:
        meta["task_list_id"] = list_id
        meta["role"] = "template" if list_id.startswith("colony:") else "session"
    if context.layout == "v3":
        meta["goal"] = words.text("list-goal")
    tasks = [
        {
            "id": number,
            "subject": words.text("list-subject"),
            "description": words.text("list-description", foreign=True),
            "active_form": words.tag("list-active"),
            "owner": owner,
            "status": status,
            "blocks": [number + 1] if number == 1 else [],
            "blocked_by": [1] if number == 2 else [],
            "metadata": {words.tag("list-key"): words.address()},
            "created_at": at.timestamp() + number,
            "updated_at": at.timestamp() + 60 * number,
        }
        for number, status in enumerate(statuses, start=1)
    ]
    disk = context.disk
    disk.json(f"{folder}/tasks.json", {"meta": meta, "highwatermark": len(tasks), "tasks": tasks}, at, ascii_only=False)
    if list_id is not None and list_id.startswith("colony:"):
        disk.write(f"{folder}/tasks.json.lock", b"", at)


def shadow_folder(context: HomeContext, session: str, at: datetime) -> None:
    """A "colony" named after a session, without metadata.json: no colony at all."""
    meta = {"task_list_id": f"colony:{session}", "role": "template", "creator_agent_id": None, "schema_version": 1}
    context.disk.json(f"colonies/{session}/tasks.json", {"meta": meta, "highwatermark": 0, "tasks": []}, at)
    context.disk.write(f"colonies/{session}/tasks.json.lock", b"", at)


def colony_records(context: HomeContext, colony: str, *, queen: str, source: str, session: str, at: datetime) -> None:
    """metadata.json and worker.json, which tell where a colony came from."""
    words, disk = context.words, context.disk
    task = words.text("colony-task")
    key = "colony_id" if context.layout == "v3" else "colony_name"
    metadata: Json = {
        key: colony,
        "queen_name": queen,
        "queen_session_id": session,
        "source_session_id": source,
        "created_at": at.isoformat(),
        "updated_at": at.isoformat(),
        "workers": {"worker": {"task": task, "spawned_at": at.isoformat()}},
    }
    disk.json(f"colonies/{colony}/metadata.json", metadata, at)
    worker = {
        "name": "worker",
        "version": "1.0.0",
        "description": f"Worker made from queen session {source}",
        "input_data": {"db_path": words.own_path(f"colonies/{colony}/data/progress.db"), "colony_id": colony},
        "goal": {"description": task, "success_criteria": [], "constraints": []},
        "system_prompt": words.text("worker-prompt", rich=True),
        "tools": [],
        "queen_id": queen,
        "spawned_from": source,
        "spawned_at": at.isoformat(),
    }
    disk.json(f"colonies/{colony}/worker.json", worker, at)


def colony_stores(context: HomeContext, colony: str, *, workers: Sequence[str], at: datetime, is_open: bool) -> None:
    """The databases of a colony, with the WAL left behind where its host is still open."""
    folder = f"colonies/{colony}"
    if context.layout == "v3":
        tracker_database(context, f"{folder}/tracker/tracker.db", at=at, keep_wal=is_open)
        playbook_database(context, f"{folder}/colony.db", at=at)
        if not is_open:
            # A migrated home: the old database moved beside the new one, its WAL with it.
            progress_database(context, f"{folder}/tracker/progress.db", workers=workers, at=at, keep_wal=True)
    else:
        progress_database(context, f"{folder}/data/progress.db", workers=workers, at=at, keep_wal=is_open)
        task_list(context, folder, list_id=f"colony:{colony}", owner="queen", at=at)
