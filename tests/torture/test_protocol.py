"""Stories that torture found or that a mutant needs: each is a promise of the protocol in a few lines.

Does not belong here: stories told by chance (test_machine.py, test_torture.py).
"""

import shutil
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest

from bench.torture import points
from bench.torture.lives import NearGate
from pipelines import failpoints
from pipelines.device import grant, ship, spool, state
from pipelines.home import Home
from pipelines.store import Store, StoreUnavailableError
from pipelines.warehouse import gate, load
from pipelines.warehouse.ingest import ingest
from pipelines.warehouse.landing import pending
from tests.device.driving import Device, append, dump, granted, no_sleep, queen_folder, turn
from tests.device.s3_stub import Fault, s3_stub
from tests.warehouse_part.batches import MemoryStore


def loaded(store: Store, monkeypatch: pytest.MonkeyPatch) -> duckdb.DuckDBPyConnection:
    """A warehouse of what was delivered."""
    monkeypatch.setattr(gate, "shared", NearGate)
    connection = duckdb.connect()
    load.prepare(connection)
    for _ in range(2):
        load.load(connection, store, pending(store, load.known_manifests(connection)))
    return connection


def tokens(connection: duckdb.DuckDBPyConnection) -> list[int]:
    """The input tokens of every turn, which `turn` numbers."""
    rows = connection.execute("SELECT input_tokens - 100 FROM wire.llm_turns ORDER BY 1").fetchall()
    return [int(number) for (number,) in rows]


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
    connection = loaded(forked(tmp_path).store, monkeypatch)
    assert tokens(connection) == [1, 2, 3]
    assert one(connection, "SELECT count(*) FROM wire.conflicts") == 0
    assert one(connection, "SELECT count(*) FROM wire.device_reports") == 3


class Died(BaseException):
    """The end of a process, as far as one process can play another's."""


def test_dying_once_at_every_point_loses_and_doubles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Test 2: once at each; `make torture` dies at each at least twenty times."""
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
    found = loaded(made.store, monkeypatch).execute("SELECT input_tokens FROM wire.llm_turns ORDER BY 1").fetchall()
    assert found == [(100 + number,) for number in range(written)]


def test_two_batches_of_one_number_are_both_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = forked(tmp_path)
    connection = loaded(made.store, monkeypatch)
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


def test_what_goes_by_hand_twice_and_by_the_network_too_counts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Test 42: batches leave in turns by the network and on a stick, some on both by a state that came back from a
    backup; the stick is brought in twice, the second time after a load."""
    home = tmp_path / "hive"
    log = queen_folder(home) / "events.jsonl"
    made = granted(tmp_path / "apiary", home)
    stick = Device(made.home, (tmp_path / "stick").as_uri())
    for number, way in enumerate((made, stick, made, stick)):
        append(log, dump(turn(number)))
        if number == 1:
            shutil.copytree(made.home.root, tmp_path / "clone")
        way.ship(home)
    Device(Home(tmp_path / "clone"), made.store_url).ship(home)  # once more, what went by hand and by the network
    ingest(tmp_path / "stick", made.store)
    assert tokens(loaded(made.store, monkeypatch)) == [0, 1, 2, 3]
    connection = loaded(made.store, monkeypatch)
    again = ingest(tmp_path / "stick", made.store)
    assert again.created == 0
    load.load(connection, made.store, pending(made.store, load.known_manifests(connection)))
    assert tokens(connection) == [0, 1, 2, 3]
    assert one(connection, "SELECT count(*) FROM wire.conflicts") == 0


def test_a_store_that_ignores_every_condition_is_called_degraded_and_counts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Test 38: it replaces what is there and checks nothing, and loses answers too: the device says so, and what is
    loaded is exact, because the last put of a name has the bytes of the first."""
    home = tmp_path / "hive"
    append(queen_folder(home) / "events.jsonl", dump(*map(turn, range(20))))
    made = granted(tmp_path / "apiary", home)
    with s3_stub() as stub:
        for name, value in stub.environment.items():
            monkeypatch.setenv(name, value)
        stub.is_careless = True
        answer = grant.ask_store(made.home, "s3://lake/x")
        assert (answer.verdict, len(answer.reasons)) == ("degraded-store", 3)
        monkeypatch.setattr(spool, "MAX_ROWS", 5)
        stub.decide = lambda number, _key: Fault(stores=True, cut="answer") if number % 3 == 0 else None
        now = datetime.now(UTC)
        ship.ship(made.home, [home], store_url="s3://lake/x", sleep=no_sleep, clock=lambda: now, is_forced=True)
    store = MemoryStore()
    for key, data in stub.objects.items():
        store.put(key.removeprefix("x/"), data)
    assert len(stub.puts) > len(stub.objects) > 8
    assert tokens(loaded(store, monkeypatch)) == [*range(20)]
