"""progress.db: read whole while its agents write it, without a lock, a file or a change left behind."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pipelines.device.lines import UnreadableError
from pipelines.device.readers import sqlite, sqlite_copy
from pipelines.device.readers.base import CorruptError, Item, UnknownLayoutError
from pipelines.device.readers.hive import progress_db
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
    return progress_db.read(path, list_id=SESSION, colony_name="leads", scratch=path.parent.parent / "copy")


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


def test_any_status_is_given_as_it_is_written_but_for_case_and_blanks(path: Path, writer: sqlite3.Connection) -> None:
    for number, status in enumerate(("started", "completed", "almost there, ask ada", "", " DONE ")):
        add(writer, f"t{number}", status)
    assert set(statuses(path).values()) == {"started", "completed", "almost there, ask ada", "", "done"}


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


# Where it cannot be opened -------------------------------------------------------------------------------------------


def cannot_open(monkeypatch: pytest.MonkeyPatch, name: str = "SQLITE_CANTOPEN") -> None:
    """As in a folder that cannot be written or on a network: no `-shm` can be made beside the database."""
    really = sqlite3.connect

    def connect(database: Any, **options: Any) -> sqlite3.Connection:
        if "mode=ro" in str(database):
            error = sqlite3.OperationalError("unable to open database file")
            error.sqlite_errorname = name
            raise error
        return really(database, **options)

    monkeypatch.setattr(sqlite3, "connect", connect)


@pytest.mark.parametrize("name", ["SQLITE_CANTOPEN", "SQLITE_READONLY_CANTINIT", "SQLITE_IOERR_SHMMAP"])
def test_what_cannot_be_opened_where_it_lies_is_read_from_a_private_copy(
    path: Path, writer: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Test 28: the log's rows included; nothing is changed, nothing is left, and the copy was nobody else's."""
    add(writer, "one")
    writer.execute("PRAGMA wal_checkpoint")
    add(writer, "two", "done")
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    modes: set[int] = set()
    really = sqlite_copy._copy

    def copy(source: Path, target: Path) -> None:
        really(source, target)
        modes.update(entry.stat().st_mode & 0o777 for entry in (target, target.parent))

    monkeypatch.setattr(sqlite_copy, "_copy", copy)
    cannot_open(monkeypatch, name)
    old = os.umask(0)
    try:
        found = {item.values["task_id"]: item.values["status"] for item in read(path)}
    finally:
        os.umask(old)
    assert found == {"one": "pending", "two": "done"}
    assert modes == {0o600, 0o700}
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before
    assert not (path.parent.parent / "copy").exists()


def test_a_folder_that_cannot_be_written_and_a_log_without_its_index(path: Path, writer: sqlite3.Connection) -> None:
    """Test 28: for real, as a user who may only read: the writer is dead, its log is there, the `-shm` is not."""
    add(writer, "one")
    program = (
        "import os, sys; from pathlib import Path; from pipelines.device.readers import sqlite_copy\n"
        "from pipelines.device.readers.hive import progress_db\n"
        "copied = []; really = sqlite_copy._copy\n"
        "sqlite_copy._copy = lambda source, target: (copied.append(source.name), really(source, target))\n"
        "path = Path('progress.db'); os.chdir(sys.argv[1])\n"
        "if os.getuid() == 0: os.setuid(65534)\n"
        "items = progress_db.read(path, list_id='s', colony_name='c', scratch=Path(sys.argv[2]) / 'copy')\n"
        "print([item.values['task_id'] for item in items], sorted(copied), os.listdir(sys.argv[2]))"
    )
    # Not under the tests' folder, which another user cannot enter.
    with tempfile.TemporaryDirectory() as place:
        folder, scratch = Path(place) / "read-only", Path(place) / "own"
        folder.mkdir()
        scratch.mkdir()
        for end in ("", "-wal"):
            shutil.copy(path.with_name(path.name + end), folder / (path.name + end))
            (folder / (path.name + end)).chmod(0o444)
        for entry, mode in ((folder, 0o555), (scratch, 0o777), (Path(place), 0o755)):
            entry.chmod(mode)
        arguments = [sys.executable, "-c", program, str(folder), str(scratch)]
        done = subprocess.run(arguments, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
        folder.chmod(0o755)
    assert done.stdout == "['one'] ['progress.db', 'progress.db-wal'] []\n", done.stderr


def test_a_database_that_is_written_while_it_is_copied_is_left_for_later(
    path: Path, writer: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(writer, "one")
    really = sqlite_copy._copy

    def copy(source: Path, target: Path) -> None:
        really(source, target)
        add(writer, f"{source.name} was copied")

    monkeypatch.setattr(sqlite_copy, "_copy", copy)
    cannot_open(monkeypatch)
    with pytest.raises(UnreadableError, match="written to"):
        read(path)
    assert not (path.parent.parent / "copy").exists()


def test_a_broken_or_too_large_copy_is_no_crash_and_leaves_nothing(
    path: Path, writer: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Test 29: a damaged page is counted or set aside, and costs nothing else."""
    writer.execute("BEGIN")
    for number in range(300):
        add(writer, f"task-{number}", payload="x" * 500)
    writer.execute("COMMIT")
    writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    add(writer, "one")
    cannot_open(monkeypatch)
    with path.open("r+b") as file:
        for page in range(2, 20):
            file.seek(page * 4096)
            file.write(os.urandom(4096))
    with pytest.raises((UnreadableError, CorruptError)):
        read(path)
    monkeypatch.setattr(sqlite_copy, "MAX_BYTES", 1000)
    with pytest.raises(UnreadableError, match="too large"):
        read(path)
    assert not (path.parent.parent / "copy").exists()


def test_what_a_killed_reader_left_goes_before_the_next(
    path: Path, writer: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(writer, "one")
    left = path.parent.parent / "copy"
    left.mkdir()
    (left / "progress.db").write_bytes(b"secret")
    cannot_open(monkeypatch)
    assert len(read(path)) == 1
    assert not left.exists()


def test_a_reading_that_takes_too_long_lets_go_and_reads_a_copy(
    path: Path, writer: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.execute("BEGIN")
    for number in range(3000):
        add(writer, f"task-{number}")
    writer.execute("COMMIT")
    monkeypatch.setattr(sqlite, "MAX_READ_SECONDS", -1.0)
    assert len(read(path)) == 3000


def test_what_a_rollback_journal_would_undo_is_not_read(path: Path) -> None:
    """Test 28: a writer without a log died in the middle of a transaction that had reached the file."""
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("PRAGMA cache_size = 1")
        writer.executescript(TABLES)
        add(writer, "one")
        writer.execute("BEGIN")
        for number in range(200):
            add(writer, f"never-{number}", payload="x" * 1000)
        folder = path.parent.parent / "dead"
        folder.mkdir()
        for file in path.parent.iterdir():
            shutil.copy(file, folder / file.name)
        writer.execute("ROLLBACK")
    assert (folder / "progress.db-journal").stat().st_size
    assert [item.values["task_id"] for item in read(folder / "progress.db")] == ["one"]


CLAIM = """
import sqlite3, sys, threading, time
path, writers, tasks = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
failed = []
def work(name):
    try:
        own = sqlite3.connect(path, isolation_level=None, timeout=60)
        for number in range(tasks):
            for status in ("claimed", "done"):
                own.execute("UPDATE tasks SET status = ? WHERE id = ?", (status, f"{name}-{number}"))
                time.sleep(0.01)
        own.close()
    except sqlite3.Error as error:
        failed.append(error)
threads = [threading.Thread(target=work, args=(name,)) for name in range(writers)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert not failed, failed
"""


def test_a_hundred_writers_are_never_told_busy_and_end_up_read_whole(path: Path, writer: sqlite3.Connection) -> None:
    """Tests 27, 31, 32 in short: a hundred claim and complete beside a reader: no busy, a bounded log, no file of
    ours."""
    writers, tasks = 100, 3
    writer.execute("BEGIN")
    for number in range(writers * tasks):
        add(writer, f"{number // tasks}-{number % tasks}")
    writer.execute("COMMIT")
    arguments = [sys.executable, "-c", CLAIM, str(path), str(writers), str(tasks)]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
        reads = 0
        while process.poll() is None:
            read(path)
            reads += 1
            time.sleep(0.02)
        _, trouble = process.communicate()
    assert process.returncode == 0, trouble
    assert reads > 2
    assert {item.values["status"] for item in read(path)} == {"done"}
    assert len(read(path)) == writers * tasks
    assert {file.name for file in path.parent.iterdir()} <= {"progress.db", "progress.db-wal", "progress.db-shm"}
    assert path.with_name("progress.db-wal").stat().st_size < 8 << 20
