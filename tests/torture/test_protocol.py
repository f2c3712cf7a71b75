"""Stories that torture found or that a mutant needs: each is a promise of the protocol in a few lines.

Does not belong here: stories told by chance (test_machine.py, test_torture.py).
"""

import shutil
from contextlib import suppress
from pathlib import Path

import duckdb
import pytest

from bench.torture import points
from bench.torture.lives import NearGate
from pipelines import failpoints
from pipelines.device import state
from pipelines.store import StoreUnavailableError
from pipelines.warehouse import gate, load
from pipelines.warehouse.landing import pending
from tests.device.driving import Device, append, dump, granted, queen_folder, turn


def loaded(made: Device, monkeypatch: pytest.MonkeyPatch) -> duckdb.DuckDBPyConnection:
    """A warehouse of what a device delivered."""
    monkeypatch.setattr(gate, "shared", NearGate)
    connection = duckdb.connect()
    load.prepare(connection)
    for _ in range(2):
        load.load(connection, made.store, pending(made.store, load.known_manifests(connection)))
    return connection


def one(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0])


def forked(tmp_path: Path) -> Device:
    """A device whose state came back from a backup: two of its batches have one number."""
    home = tmp_path / "hive"
    log = queen_folder(home) / "events.jsonl"
    made = granted(tmp_path / "apiary", home)
    append(log, dump(turn(1)))
    made.ship(home)
    shutil.copyfile(made.state_file, tmp_path / "backup.db")
    append(log, dump(turn(2)))
    made.ship(home)
    for path in made.state_file.parent.glob("state.db*"):
        path.unlink()
    shutil.copyfile(tmp_path / "backup.db", made.state_file)
    append(log, dump(turn(3)))
    made.ship(home)
    return made


def test_a_restored_state_loses_and_doubles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = loaded(forked(tmp_path), monkeypatch)
    found = connection.execute("SELECT input_tokens FROM wire.llm_turns ORDER BY 1").fetchall()
    assert found == [(101,), (102,), (103,)]
    assert one(connection, "SELECT count(*) FROM wire.conflicts") == 0
    assert one(connection, "SELECT count(*) FROM wire.device_reports") == 3


class Died(BaseException):
    """The end of a process, as far as one process can play another's."""


def test_dying_once_at_every_point_loses_and_doubles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "hive"
    log = queen_folder(home) / "events.jsonl"
    append(log, dump(turn(0)))
    made = granted(tmp_path / "apiary", home)
    monkeypatch.setattr(state, "MAX_SHARED_SECONDS", -1.0)  # each step is a transaction of its own
    died, written = set(), 1
    for point in points.DEVICE:
        for passes in (1, 2):
            append(log, dump(turn(written)))
            written += 1
            left = [passes]

            def hook(name: str, point: str = point, left: list[int] = left) -> None:
                left[0] -= name == point
                if name == point and not left[0]:
                    died.add(name)
                    raise Died(name)

            with monkeypatch.context() as armed, suppress(Died):
                armed.setattr(failpoints, "hook", hook)
                made.ship(home)
    made.ship(home)
    # Not passed here: a refusal, an object summary, a task list, an old receipt (bench/torture passes them).
    assert len(died) >= len(points.DEVICE) - 8, sorted(set(points.DEVICE) - died)
    found = loaded(made, monkeypatch).execute("SELECT input_tokens FROM wire.llm_turns ORDER BY 1").fetchall()
    assert found == [(100 + number,) for number in range(written)]


def test_two_batches_of_one_number_are_both_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = forked(tmp_path)
    connection = loaded(made, monkeypatch)
    # One after the other as well: the ledger must not take the second for the first.
    other = duckdb.connect()
    load.prepare(other)
    for arrival in pending(made.store, set()):
        new = [found for found in pending(made.store, load.known_manifests(other)) if found == arrival]
        load.load(other, made.store, new)
    for warehouse in (connection, other):
        assert one(warehouse, "SELECT count(*) FROM wire.batches WHERE status = 'loaded'") == 3
        assert one(warehouse, "SELECT count(DISTINCT seq) FROM wire.batches") == 2


def test_what_waits_in_the_spool_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "hive"
    append(queen_folder(home) / "events.jsonl", dump(turn(1)))
    made = granted(tmp_path / "apiary", home)
    ready = made.home.device / "spool" / "ready"

    def away(*_: object, **__: object) -> None:
        raise StoreUnavailableError("the store is away")

    with monkeypatch.context() as patched:
        patched.setattr("pipelines.store.FolderStore.put", away)
        for _ in range(2):
            with pytest.raises(Exception, match="away"):
                made.ship(home)
    waiting = {path.name: path.stat().st_ino for path in ready.iterdir()}
    assert waiting
    made.ship(home)
    kept = {path.name: path.stat().st_ino for path in (made.home.device / "receipts").iterdir()}
    assert waiting.items() <= kept.items()
