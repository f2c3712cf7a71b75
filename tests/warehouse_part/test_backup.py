"""A home is backed up, destroyed and restored: file by file the same, or nothing is touched.

Does not belong here: that the restored warehouse runs on (the long form below runs the whole job).
"""

import hashlib
import os
import shutil
import sqlite3
import tarfile
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import pytest

from pipelines import cli
from pipelines.home import Home
from pipelines.store import FolderStore
from pipelines.warehouse import backup, suppression
from pipelines.warehouse.backup import BackupError

NOW = datetime(2026, 11, 20, 1, 2, 3, tzinfo=UTC)
LEFT_OUT = ("dbt/x.log", "device/key", "devices/a/state", "warehouse/lock", "warehouse/trial/a", "exports/.x.aside")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Something of everything that a home has."""
    home = Home(tmp_path / "home")
    home.warehouse.parent.mkdir(parents=True)
    with duckdb.connect(str(home.warehouse)) as connection:
        connection.execute("CREATE SCHEMA marts; CREATE TABLE marts.t AS SELECT range AS n FROM range(1000)")
    kept = ("exports/head.json", "exports/daily/a b/v0001/x.csv", "billing/periods.jsonl", "billing/keys/signing.pem")
    for name in (*kept, "warehouse/devices.json", "published/versions/1/t.parquet", "store/landing/v1/o", *LEFT_OUT):
        path = home.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name, "utf-8")
        os.utime(path, ns=(1_764_000_000_123_456_789, 1_764_000_000_123_456_789))
    (home.root / "billing/keys/signing.pem").chmod(0o600)
    role = home.published / "versions" / "1" / "roles" / "finance"
    role.mkdir(parents=True)
    (role / "t.parquet").hardlink_to(home.published / "versions" / "1" / "t.parquet")  # as a publication does
    (home.published / "current").symlink_to("versions/1")
    (home.dagster / "history").mkdir(parents=True)
    with closing(sqlite3.connect(home.dagster / "history" / "runs.db")) as records:
        records.execute("PRAGMA journal_mode = WAL")
        records.execute("CREATE TABLE runs AS SELECT 1 AS id")
        records.commit()
    return home


def state(home: Home) -> dict[str, object]:
    """Every file that a backup keeps: content, mode and time; a database by its rows."""
    found: dict[str, object] = {}
    for path in home.root.rglob("*"):
        name = path.relative_to(home.root).as_posix()
        if (path.is_dir() and not path.is_symlink()) or name in LEFT_OUT or name.startswith("dagster/"):
            continue
        status = path.lstat()
        content = str(path.readlink()) if path.is_symlink() else hashlib.sha256(path.read_bytes()).hexdigest()
        found[name] = (content, status.st_mode, None if path.is_symlink() else status.st_mtime_ns)
    with closing(sqlite3.connect(home.dagster / "history" / "runs.db")) as records:
        found["runs"] = records.execute("SELECT * FROM runs").fetchall()
    with duckdb.connect(str(home.warehouse), read_only=True) as connection:
        found["marts"] = connection.execute("SELECT count(*), sum(n) FROM marts.t").fetchall()
    return found


def empty(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "elsewhere")


def test_a_home_that_was_destroyed_comes_back_as_it_was(home: Home, tmp_path: Path) -> None:
    made = backup.make(home, tmp_path / "kept", now=NOW)
    assert made.file.name == "apiary-backup-20261120T010203Z.tar"
    assert made.file.stat().st_mode & 0o077 == 0, "it holds a key and rows of people"
    assert list(made.file.parent.iterdir()) == [made.file]
    before = state(home)
    shutil.rmtree(home.root)
    done = backup.restore(home, made.file, empty(tmp_path))
    assert state(home) == before
    assert (done.made_at, done.files, done.reopened) == (NOW, made.files, 0)
    assert [name for name in LEFT_OUT if (home.root / name).exists()] == []
    assert not (home.root / ".restore").exists()


def test_nothing_is_overwritten_and_a_store_that_is_there_stays(home: Home, tmp_path: Path) -> None:
    made = backup.make(home, tmp_path / "kept", now=NOW)
    before = state(home)
    with pytest.raises(BackupError, match="already: restore into another APIARY_HOME, or move"):
        backup.restore(home, made.file, empty(tmp_path))
    assert state(home) == before
    for name in ("warehouse", "exports", "billing", "published", "dagster"):
        shutil.rmtree(home.root / name)
    newer = home.root / "store" / "landing" / "v1" / "o"
    newer.write_text("newer", "utf-8")
    backup.restore(home, made.file, empty(tmp_path))
    assert newer.read_text("utf-8") == "newer", "the landing is newer than any backup of it"
    assert state(home)["marts"] == before["marts"]


@pytest.mark.parametrize("damage", ["cut", "changed", "renamed", "added", "other"])
def test_a_damaged_backup_restores_nothing(home: Home, tmp_path: Path, damage: str) -> None:
    file = backup.make(home, tmp_path / "kept", now=NOW).file
    data = file.read_bytes()
    if damage == "cut":
        file.write_bytes(data[: len(data) // 2])
    elif damage == "changed":  # the content of that file is its name; the header before it has a checksum of its own
        at = data.index(b"exports/head.json", data.index(b"exports/head.json") + 20)
        assert tarfile.BLOCKSIZE - at % tarfile.BLOCKSIZE == tarfile.BLOCKSIZE, "a block of content"
        file.write_bytes(data[:at] + b"EXPORTS" + data[at + 7 :])
    elif damage == "renamed":
        with tarfile.open(file) as tar, tarfile.open(tmp_path / "other.tar", "w") as other:
            for member in tar.getmembers():
                content = tar.extractfile(member) if member.isreg() else None
                member.name = member.name.replace("billing/periods.jsonl", "billing/PERIODS.jsonl")
                other.addfile(member, content)
        (tmp_path / "other.tar").replace(file)
    elif damage == "added":
        with tarfile.open(file, "a") as tar:
            tar.add(__file__, "billing/more.csv")
    else:
        file.write_text("no archive", "utf-8")
    target = Home(tmp_path / "target")
    with pytest.raises(BackupError, match="nothing was restored"):
        backup.restore(target, file, empty(tmp_path))
    assert list(target.root.rglob("*")) == []


@pytest.mark.parametrize("moves", [0, 1, 5])
def test_one_that_was_killed_goes_on(home: Home, tmp_path: Path, moves: int, monkeypatch: pytest.MonkeyPatch) -> None:
    file = backup.make(home, tmp_path / "kept", now=NOW).file
    before = state(home)
    shutil.rmtree(home.root)
    replace, count = Path.replace, iter(range(100))

    def dies(self: Path, target: Path) -> Path:
        if next(count) == moves:
            raise KeyboardInterrupt
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", dies)
        with pytest.raises(KeyboardInterrupt):
            backup.restore(home, file, empty(tmp_path))
    backup.restore(home, file, empty(tmp_path))
    assert state(home) == before


def test_erasures_that_were_finished_after_it_was_made_are_opened_again(home: Home, tmp_path: Path) -> None:
    store = empty(tmp_path)
    lines = [
        suppression.record(store, scope="tenant", tenant=name, subject=name, actor="ada", reason="request")
        for name in ("acme", "bolt")
    ]
    for line, at in zip(lines, (NOW - timedelta(days=2), NOW + timedelta(days=1)), strict=True):
        store.put(f"{suppression.DONE}{line.request_id}.json", b"{}")
        os.utime(store.root / f"{suppression.DONE}{line.request_id}.json", (at.timestamp(), at.timestamp()))
    file = backup.make(home, tmp_path / "kept", now=NOW).file
    shutil.rmtree(home.root)
    assert backup.restore(home, file, store).reopened == 1
    (again,) = suppression.pending(store, suppression.load(store))
    assert again.tenant == "bolt", "its rows are in the backup"


def test_the_commands_say_what_they_did(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("APIARY_HOME", str(home.root))
    monkeypatch.delenv("APIARY_STORE", raising=False)
    assert cli.main(["backup", "--to", str(home.root / "exports")]) == 1
    assert "lies in the home that is backed up" in capsys.readouterr().err
    assert cli.main(["backup", "--to", str(tmp_path / "kept")]) == 0
    (file,) = (tmp_path / "kept").iterdir()
    assert str(file) in capsys.readouterr().out
    assert cli.main(["restore", str(file)]) == 1
    assert "move billing/ away first" in capsys.readouterr().err
    monkeypatch.setenv("APIARY_HOME", str(tmp_path / "other"))
    assert cli.main(["backup", "--to", str(tmp_path / "kept")]) == 1
    assert "no warehouse in" in capsys.readouterr().err
    assert cli.main(["restore", str(file)]) == 0
    assert "as of 20" in capsys.readouterr().out


@pytest.mark.long  # a whole run
def test_a_restored_warehouse_has_the_same_marts_and_chain_and_runs_on(tmp_path: Path) -> None:
    from pipelines.simulate.homes import HomeSpec, write_home
    from tests.end_to_end.driving import apiary, device, send

    spec = HomeSpec(layout="v2", seed=1, timezone="UTC", first_day=date(2026, 3, 1), days=1, queens_per_day=1)
    write_home(tmp_path / "hive", spec)
    store = (tmp_path / "store").as_uri()
    home = device(tmp_path / "home", store=store)
    send(home, tmp_path / "hive")
    apiary(home.root, "run", "--store", store)

    def marts() -> dict[str, int]:
        with duckdb.connect(str(home.published / "current" / "marts.duckdb"), read_only=True) as connection:
            names = connection.execute("SELECT table_schema, table_name FROM information_schema.tables").fetchall()
            return {
                table: connection.execute(f'SELECT bit_xor(hash(t)) FROM "{schema}"."{table}" AS t').fetchone()[0]
                for schema, table in names
            }

    before, chain = marts(), apiary(home.root, "verify", home.exports).stdout
    apiary(home.root, "backup", "--to", tmp_path / "kept", "--store", store)
    (file,) = (tmp_path / "kept").iterdir()
    shutil.rmtree(home.root)
    apiary(home.root, "restore", file, "--store", store)
    assert marts() == before
    assert apiary(home.root, "verify", home.exports).stdout == chain
    statements = sorted(path.name for path in home.exports.rglob("v0*"))
    apiary(home.root, "run", "--store", store)
    assert {name: value for name, value in marts().items() if "run" not in name} == {
        name: value for name, value in before.items() if "run" not in name
    }
    assert sorted(path.name for path in home.exports.rglob("v0*")) == statements, "no day is exported anew"
