"""A backup of a warehouse's home in one file, and its restoration into a home that has none.

In it: the warehouse, books, closed months, exports with their signing key, publications, Dagster's records, and the
store if it is a folder of the home. Not in it: what is made anew (`dbt/`), and what belongs to the owner of the device
(`device/`, `devices/`). The file holds rows of people and a key: it is for its owner alone.
Does not belong here: rebuilding from the landing (rebuild.py).
"""

import hashlib
import json
import os
import shutil
import sqlite3
import tarfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Any

import duckdb

from pipelines.errors import ExpectedError
from pipelines.home import Home, private_folder, sync_folder
from pipelines.store import Store
from pipelines.warehouse import suppression

FORMAT = 1
MANIFEST = "apiary-backup.json"
STAGING, VERIFIED = ".restore", "verified"
LEFT_OUT = {"dbt", "device", "devices", STAGING}
LEFT_OUT_OF_WAREHOUSE = {"lock", "trial", "rebuilt", "shadow", "last_run.json"}
KEPT_STORE = "store"  # of a home that still has it: the landing is newer than any backup of it
MINE_BEFORE = {"warehouse/lock", "warehouse/first_arrival_day"}  # files that a home without a warehouse may have
CLOCKS_APART = timedelta(hours=1)  # between the store's clock and that of the machine that made the backup
BLOCK = 1 << 20


class BackupError(ExpectedError):
    """A backup could not be made or restored; the text says what to do."""


@dataclass(frozen=True)
class Backup:
    """A backup that was written or restored. `bytes`: of its files; `reopened`: erasures that the next run repeats."""

    file: Path
    made_at: datetime
    files: int
    bytes: int
    reopened: int = 0


def make(home: Home, folder: Path, *, now: datetime) -> Backup:
    """Write a backup into a folder; the caller holds the lock of the warehouse. Raises BackupError, OSError."""
    if not home.warehouse.exists():
        raise BackupError(f"there is no warehouse in {home.root} yet: `apiary run` makes it")
    if folder.resolve().is_relative_to(home.root.resolve()):
        raise BackupError(f"{folder} lies in the home that is backed up: name a folder elsewhere")
    with closing(duckdb.connect(str(home.warehouse))) as connection:
        connection.execute("CHECKPOINT")  # one file without a log beside it
    target = private_folder(folder) / f"apiary-backup-{now:%Y%m%dT%H%M%SZ}.tar"
    aside = target.with_name(f".{target.name}.aside")
    scratch = target.with_name(f".{target.name}.sqlite")
    entries: dict[str, dict[str, Any]] = {}
    try:
        with (
            open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file,  # noqa: PTH123
            tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar,
        ):
            for path in _files(home):
                entries[path.relative_to(home.root).as_posix()] = _add(tar, path, home.root, scratch)
            said = {"format": FORMAT, "made_at": now.isoformat(), "entries": entries}
            _add_manifest(tar, json.dumps(said).encode(), aside.with_name(MANIFEST))
        _sync(aside)
        aside.replace(target)
        sync_folder(folder)
    finally:
        for left in (aside, scratch, aside.with_name(MANIFEST)):
            left.unlink(missing_ok=True)
    return Backup(target, now, len(entries), sum(int(entry.get("size", 0)) for entry in entries.values()))


def restore(home: Home, file: Path, store: Store) -> Backup:
    """Put a backup into a home without a warehouse; the caller holds the lock. Killed on the way, call it again.

    Nothing takes its place before the whole file was read and each hash is right. Erasures that were finished after
    the backup was made are opened again, so that the next run takes out what the backup brings back.
    Raises BackupError, StoreUnavailableError, StoreRefusedError, OSError.
    """
    staging = home.root / STAGING
    digest = _digest(file)
    if _text(staging / VERIFIED) != digest:
        shutil.rmtree(staging, ignore_errors=True)
        try:
            _extract(file, private_folder(staging) / "files")
            said = _verified(staging / "files")
            _refuse_what_is_there(home, said)
        except BackupError:
            shutil.rmtree(staging)  # it may hold rows of people
            raise
        (staging / VERIFIED).write_text(digest, "utf-8")
        sync_folder(staging)
    said = json.loads((staging / "files" / MANIFEST).read_bytes())
    made_at = datetime.fromisoformat(said["made_at"])
    reopened = suppression.reopen(store, finished_since=made_at - CLOCKS_APART)
    keeps_store = any((home.root / KEPT_STORE).rglob("*"))
    for name in sorted(said["entries"]):
        source, target = staging / "files" / name, home.root / name
        if os.path.lexists(source) and not (keeps_store and PurePosixPath(name).parts[0] == KEPT_STORE):
            private_folder(target.parent)
            source.replace(target)
    shutil.rmtree(staging)
    size = sum(int(entry.get("size", 0)) for entry in said["entries"].values())
    return Backup(file, made_at, len(said["entries"]), size, reopened)


def _files(home: Home) -> Iterator[Path]:
    """Files and links of a home that a backup holds, in the order of their names."""
    for folder, folders, names in os.walk(home.root):
        here = Path(folder).relative_to(home.root)
        out = LEFT_OUT if here == Path() else LEFT_OUT_OF_WAREHOUSE if here == Path("warehouse") else set()
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        folders[:] = sorted(name for name in folders if name not in out and name not in links)
        for name in sorted([*names, *links]):
            path = Path(folder) / name
            is_log = here.parts[:1] == ("dagster",) and name.endswith(("-wal", "-shm", "-journal"))
            if name not in out and not name.endswith(".aside") and not is_log and (path.is_file() or path.is_symlink()):
                yield path


def _add(tar: tarfile.TarFile, path: Path, root: Path, scratch: Path) -> dict[str, Any]:
    """Put one file or link into the archive; what the manifest says of it."""
    name = path.relative_to(root).as_posix()
    if path.is_symlink():
        tar.add(path, name, recursive=False)
        return {"link": str(path.readlink())}
    status, source = path.stat(), path
    if name.startswith("dagster/") and name.endswith(".db"):  # a daemon may be writing it
        scratch.unlink(missing_ok=True)
        with closing(sqlite3.connect(path)) as live, closing(sqlite3.connect(scratch)) as copy:
            live.backup(copy)
        source = scratch
    member = tarfile.TarInfo(name)  # not what tarfile makes of it: of a file with two names it would keep one's content
    member.size, member.mode, member.mtime = source.stat().st_size, status.st_mode & 0o777, status.st_mtime
    with source.open("rb") as file:
        hashed = _Hashing(file)
        tar.addfile(member, hashed)
    return {"size": member.size, "sha256": hashed.digest.hexdigest(), "mtime_ns": status.st_mtime_ns}


def _add_manifest(tar: tarfile.TarFile, data: bytes, scratch: Path) -> None:
    """The last member: an archive without it was cut off."""
    scratch.write_bytes(data)
    scratch.chmod(0o600)
    tar.add(scratch, MANIFEST)


class _Hashing:
    """A file that is hashed while it is read."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._file.read(size)
        self.digest.update(data)
        return data


def _extract(file: Path, folder: Path) -> None:
    try:
        with tarfile.open(file, "r:") as tar:
            tar.extractall(private_folder(folder), filter="data")
    except (tarfile.TarError, EOFError) as error:
        raise BackupError(f"{file} is no whole backup: {error}; nothing was restored") from None


def _verified(folder: Path) -> dict[str, Any]:
    """The manifest, once every file is as it says and there is no other."""
    try:
        said: dict[str, Any] = json.loads((folder / MANIFEST).read_bytes())
    except (FileNotFoundError, ValueError):
        raise BackupError("the backup has no manifest: it was cut off; nothing was restored") from None
    if said.get("format") != FORMAT:
        raise BackupError(f"the backup has format {said.get('format')}: restore it by the release that made it")
    there = {
        (Path(where) / name).relative_to(folder).as_posix()
        for where, folders, names in os.walk(folder)
        for name in [*names, *(name for name in folders if (Path(where) / name).is_symlink())]
    }
    if there != {*said["entries"], MANIFEST}:
        raise BackupError("the backup has other files than it names; nothing was restored")
    for name, entry in said["entries"].items():
        path = folder / name
        is_right = str(path.readlink()) == entry["link"] if "link" in entry else _digest(path) == entry["sha256"]
        if not is_right:
            raise BackupError(f"the backup is damaged: {name} is not what was backed up; nothing was restored")
        if "link" not in entry:
            _sync(path)
            os.utime(path, ns=(entry["mtime_ns"], entry["mtime_ns"]))  # of a folder store it is the time of arrival
    return said


def _refuse_what_is_there(home: Home, said: dict[str, Any]) -> None:
    tops = {PurePosixPath(name).parts[0] for name in said["entries"]} - {KEPT_STORE}
    for top in sorted(tops):
        for path in [home.root / top] if (home.root / top).is_file() else (home.root / top).rglob("*"):
            if not path.is_dir() and path.relative_to(home.root).as_posix() not in MINE_BEFORE:
                raise BackupError(
                    f"{home.root} has {path.relative_to(home.root)} already: restore into another APIARY_HOME, or move"
                    f" {top}/ away first"
                )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _text(path: Path) -> str | None:
    return path.read_text("utf-8") if path.exists() else None
