"""progress.db: read whole while its agents write it, without a lock, a file or a change left behind."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pipelines.device.lines import UnreadableError
from pipelines.device.readers import progress_db
from pipelines.device.readers.hive_state import Item
from pipelines.device.readers.progress_db import CorruptError, UnknownLayoutError
from tests.device.driving import SESSION

TABLES = """
CREATE TABLE tasks (id TEXT PRIMARY KEY, seq INTEGER, priority INTEGER NOT NULL DEFAULT 0, goal TEXT NOT NULL,
  payload TEXT, status TEXT NOT NULL DEFAULT 'pending', worker_id TEXT, claim_token TEXT, claimed_at TEXT,
  started_at TEXT, completed_at TEXT, created_at TEXT NOT NULL, updated_at TEXT NOT NULL,
  retry_count INTEGER NOT NULL DEFAULT 0, max_retries INTEGER NOT NULL DEFAULT 3, last_error TEXT,
  parent_task_id TEXT, source TEXT);
CREATE TABLE steps (id TEXT PRIMARY KEY, task_id TEXT NOT NULL, seq INTEGER NOT NULL, title TEXT NOT NULL, detail TEXT,
  status TEXT NOT NULL DEFAULT 'pending', evidence TEXT, worker_id TEXT, started_at TEXT, completed_at TEXT);
CREATE TABLE sop_checklist (id TEXT PRIMARY KEY, task_id TEXT NOT NULL, key TEXT NOT NULL, description TEXT NOT NULL,
  required INTEGER NOT NULL DEFAULT 1, done_at TEXT, done_by TEXT, note TEXT);
"""


def add(connection: sqlite3.Connection, task: str, status: str = "pending", **other: Any) -> None:
    values = {
        "id": task, "goal": "secret", "status": status, "created_at": "2026-05-04T19:00:00+00:00",
        "updated_at": "2026-05-04 20:00:00", **other,
    }  # fmt: skip
    names = ", ".join(values)
    connection.execute(f"INSERT INTO tasks ({names}) VALUES ({', '.join('?' * len(values))})", [*values.values()])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder / "progress.db"


@pytest.fixture
def writer(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(TABLES)
        yield connection


def read(path: Path) -> list[Item]:
    return progress_db.read(path, list_id=SESSION, colony_name="leads")


def statuses(path: Path) -> dict[object, object]:
    return {item.values["task_id"]: item.values["status"] for item in read(path) if item.values["item"] == "task"}


def test_rows_in_the_log_of_a_live_writer_are_seen(path: Path, writer: sqlite3.Connection) -> None:
    for number in range(5):
        add(writer, f"t{number}", "claimed")
    assert path.with_name("progress.db-wal").stat().st_size > 0
    assert statuses(path) == dict.fromkeys((f"t{number}" for number in range(5)), "claimed")


def test_a_live_writer_is_never_told_that_the_database_is_busy(path: Path, writer: sqlite3.Connection) -> None:
    add(writer, "t0")
    stop = time.monotonic() + 1.5
    process = multiprocessing.get_context("spawn").Process(target=read_until, args=(path, time.time() + 2.5))
    process.start()
    number = 0
    while time.monotonic() < stop or process.is_alive():
        number += 1
        add(writer, f"x{number}")  # timeout 0: a lock of ours would raise here
        if number % 50 == 0:
            writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        time.sleep(0.001)
    process.join()
    assert process.exitcode == 0
    assert number > 100


def read_until(path: Path, end: float) -> None:
    while time.time() < end:
        assert read(path)


def test_no_lock_is_kept_after_reading(path: Path, writer: sqlite3.Connection) -> None:
    add(writer, "t0")
    read(path)
    writer.execute("BEGIN EXCLUSIVE")
    writer.execute("COMMIT")
    assert writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    writer.execute("PRAGMA journal_mode = DELETE")  # needs to be the only connection


def test_a_quiet_database_is_not_touched_and_gets_no_file_beside_it(path: Path, writer: sqlite3.Connection) -> None:
    add(writer, "t0", "done")
    writer.close()
    before = (sorted(path.parent.iterdir()), path.read_bytes(), path.stat().st_mtime_ns)
    assert statuses(path) == {"t0": "done"}
    assert (sorted(path.parent.iterdir()), path.read_bytes(), path.stat().st_mtime_ns) == before


def test_what_a_dead_writer_left_in_its_log_is_seen(path: Path, writer: sqlite3.Connection, tmp_path: Path) -> None:
    writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    add(writer, "t0", "failed")
    copy = tmp_path / "copy"
    shutil.copytree(path.parent, copy)
    (copy / "progress.db-shm").unlink()
    assert statuses(copy / "progress.db") == {"t0": "failed"}


def test_an_empty_database_and_one_without_rows(path: Path, writer: sqlite3.Connection) -> None:
    assert read(path) == []
    path.with_name("other.db").touch()
    with pytest.raises(UnknownLayoutError):
        read(path.with_name("other.db"))


def test_columns_that_are_missing_are_unknown_and_others_are_not_read(path: Path) -> None:
    with closing(sqlite3.connect(path)) as old:
        old.execute("CREATE TABLE tasks (id TEXT, status TEXT, surprise TEXT)")
        old.execute("INSERT INTO tasks VALUES ('t0', 'done', 'secret')")
        old.execute("CREATE TABLE steps (id TEXT, task_id TEXT)")
        old.execute("CREATE TABLE sop_checklist (id TEXT, task_id TEXT)")
        old.commit()
    (item,) = read(path)
    assert (item.values["status"], item.values["seq"], item.values["updated_at"]) == ("done", None, None)
    assert "secret" not in str(item)


def test_tables_of_another_layout_are_not_guessed_at(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE tasks (name TEXT, state TEXT)")
    with pytest.raises(UnknownLayoutError):
        read(path)


@pytest.mark.parametrize("content", [b"no database at all, only text" * 100, b"SQLite format 3\x00" + b"\xff" * 4096])
def test_a_corrupt_file_is_said_to_be_corrupt(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(CorruptError):
        read(path)


def test_a_database_torn_in_the_middle_is_corrupt(path: Path, writer: sqlite3.Connection) -> None:
    for number in range(2000):
        add(writer, f"t{number}", payload="x" * 50)
    writer.close()
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(CorruptError):
        read(path)


def test_letters_that_are_no_utf8_do_not_cost_the_database(path: Path, writer: sqlite3.Connection) -> None:
    add(writer, "t0", "done")
    writer.execute(
        "UPDATE tasks SET last_error = CAST(x'ff fe 00' AS TEXT), worker_id = CAST(x'c3' AS TEXT)".replace(
            "ff fe 00", "fffe00"
        )
    )
    add(writer, "t1", "failed")
    assert statuses(path) == {"t0": "done", "t1": "failed"}


def test_any_status_is_given_as_it_is_written(path: Path, writer: sqlite3.Connection) -> None:
    for number, status in enumerate(("started", "completed", "almost there, ask ada", "")):
        add(writer, f"t{number}", status)
    assert set(statuses(path).values()) == {"started", "completed", "almost there, ask ada", ""}


def test_both_texts_of_a_time_are_utc(path: Path, writer: sqlite3.Connection) -> None:
    add(writer, "t0")
    (item,) = read(path)
    assert item.values["created_at"] == datetime(2026, 5, 4, 19, tzinfo=UTC)
    assert item.values["updated_at"] == datetime(2026, 5, 4, 20, tzinfo=UTC)


def test_steps_and_checklist_items_belong_to_their_task(path: Path, writer: sqlite3.Connection) -> None:
    add(writer, "t0")
    writer.execute("INSERT INTO steps (id, task_id, seq, title, status) VALUES ('s', 't0', 1, 'secret', 'in_progress')")
    writer.execute(
        "INSERT INTO sop_checklist (id, task_id, key, description, done_at) VALUES ('c', 't0', 'k', 'd', '2026-05-04')"
    )
    kinds = {item.values["item"]: item.values for item in read(path)}
    assert (kinds["step"]["task_id"], kinds["step"]["item_id"], kinds["step"]["status"]) == ("t0", "s", "in_progress")
    assert (kinds["checklist"]["status"], kinds["checklist"]["is_required"]) == ("done", True)
    assert kinds["step"]["updated_at"] == kinds["task"]["updated_at"], "a step has no time of change of its own"


@pytest.mark.parametrize("beside", ["-wal", "-shm", "-journal"])
def test_a_pipe_or_a_link_beside_a_database_is_not_followed_and_does_not_hang(
    path: Path, writer: sqlite3.Connection, beside: str, tmp_path: Path
) -> None:
    writer.close()
    target = path.with_name(path.name + beside)
    for make in (os.mkfifo, lambda name: name.symlink_to(tmp_path / "elsewhere")):
        make(target)
        with pytest.raises(UnreadableError):
            read(path)
        target.unlink()


def test_a_link_a_pipe_and_a_folder_in_its_place(
    path: Path, writer: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.close()
    monkeypatch.setattr("os.getuid", lambda: path.stat().st_uid + 1)  # the second name is of somebody else's file
    for name, make in (
        ("link", lambda name: name.symlink_to(path)), ("pipe", os.mkfifo), ("folder", Path.mkdir),
        ("hard", lambda name: os.link(path, name)),
    ):  # fmt: skip
        other = path.with_name(name)
        make(other)
        with pytest.raises(UnreadableError):
            read(other)
        other.rmdir() if name == "folder" else other.unlink()


def test_a_folder_with_a_name_of_odd_bytes(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9 ?#%")
    folder.mkdir()
    with closing(sqlite3.connect(os.fsencode(folder / "progress.db"), isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(TABLES)
        add(connection, "t0", "done")
        assert statuses(folder / "progress.db") == {"t0": "done"}
