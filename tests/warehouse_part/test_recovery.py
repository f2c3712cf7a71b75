"""The warehouse's file after a sudden end: it opens without a person, and what it lost is loaded again, once."""

import os
import random
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import duckdb
import pytest

from pipelines.store import FolderStore
from pipelines.warehouse import landing, load, opening, rebuild, registry
from pipelines.warehouse.landing import everybody
from tests.warehouse import Warehouse
from tests.warehouse_part.batches import CLONE, LAPTOP, SERVER, START, MemoryStore, batch, row, turn

# Loads everything in three transactions, the last two of which are in the log only, and dies: at once, or while the log
# is written into the file.
LIFE = """
import os, signal, sys, threading, time
import duckdb
from pathlib import Path
from pipelines.store import FolderStore
from pipelines.warehouse import landing, load

path, store, moment = sys.argv[1], FolderStore(Path(sys.argv[2])), float(sys.argv[3])
connection = duckdb.connect(path)
connection.execute("SET checkpoint_threshold = '1TB'")
load.prepare(connection)
arrivals = landing.pending(store, set())
load.load(connection, store, arrivals[:8])
connection.execute("CHECKPOINT")
load.load(connection, store, arrivals[8:16])
load.load(connection, store, arrivals[16:])
if moment:
    threading.Thread(target=lambda: (time.sleep(moment), os.kill(os.getpid(), signal.SIGKILL))).start()
    connection.execute("CHECKPOINT")
    time.sleep(5)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FolderStore:
    """A landing of 24 batches with copies among them."""
    memory, folder = MemoryStore(), FolderStore(tmp_path_factory.mktemp("landing"))
    for n in range(24):
        device = (LAPTOP, CLONE, SERVER)[n % 3]
        rows = {"llm_turns": [turn(n), turn(n // 2)], "node_steps": [row("node_steps", n)]}
        batch(memory, rows, seq=n, device=device, minute=n)
    for key, body in memory.objects.items():
        folder.put(key, body)
        moment = memory.received[key].timestamp()
        os.utime(folder.root / key, (moment, moment))
    return folder


@pytest.fixture(scope="module")
def expected(store: FolderStore) -> str:
    with duckdb.connect() as connection:
        load.prepare(connection)
        load.load(connection, store, landing.pending(store, set()))
        return load.wire_hash(connection)


def died(warehouse: Path, store: FolderStore, moment: float) -> None:
    found = subprocess.run([sys.executable, "-c", LIFE, str(warehouse), str(store.root), str(moment)], check=False)
    assert found.returncode == -9


def recovered(warehouse: Path, store: FolderStore) -> tuple[str, list[Path]]:
    """Open the file and load what it does not know; the hash of the wire, and what was set aside."""
    aside = opening.make_openable(warehouse)
    with duckdb.connect(str(warehouse)) as connection:
        load.prepare(connection)
        load.load(connection, store, landing.pending(store, load.known_manifests(connection)))
        doubled = connection.execute(
            "SELECT count(*) - count(DISTINCT (tenant_id, record_id)) FROM wire.llm_turns"
        ).fetchone()
        assert doubled == (0,)
        return load.wire_hash(connection), aside


def log_of(warehouse: Path) -> Path:
    return warehouse.with_name(warehouse.name + ".wal")


@pytest.fixture(scope="module")
def killed_in_commit(store: FolderStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file and its log, as kill -9 left them."""
    warehouse = tmp_path_factory.mktemp("killed") / "apiary.duckdb"
    died(warehouse, store, 0)
    assert log_of(warehouse).stat().st_size > 4096
    return warehouse


def after(killed: Path, folder: Path, log: bytes) -> Path:
    warehouse = folder / "apiary.duckdb"
    shutil.copy(killed, warehouse)
    log_of(warehouse).write_bytes(log)
    return warehouse


def cut_off(killed: Path, store: FolderStore, folder: Path, lengths: list[int], expected: str) -> None:
    log = log_of(killed).read_bytes()
    for length in lengths:
        warehouse = after(killed, folder, log[:length])
        assert recovered(warehouse, store)[0] == expected, f"{length} of {len(log)} bytes"
        warehouse.unlink()


def test_a_log_cut_off_anywhere(killed_in_commit: Path, store: FolderStore, tmp_path: Path, expected: str) -> None:
    """Test 10, a sample: kill -9 in commit, the log truncated within its last 4 KiB."""
    size = log_of(killed_in_commit).stat().st_size
    cut_off(
        killed_in_commit,
        store,
        tmp_path,
        [size, size - 1, *random.Random(10).sample(range(size - 4096, size), 2)],
        expected,
    )


@pytest.mark.long
@pytest.mark.parametrize("part", range(8))
def test_a_log_cut_off_at_every_byte(
    killed_in_commit: Path, store: FolderStore, tmp_path: Path, expected: str, part: int
) -> None:
    """Test 10: every byte of the last 4 KiB, in eight parts of some minutes each."""
    size = log_of(killed_in_commit).stat().st_size
    cut_off(killed_in_commit, store, tmp_path, list(range(size - 4096 + part, size, 8)), expected)


def test_a_log_that_will_not_replay_is_set_aside(
    killed_in_commit: Path, store: FolderStore, tmp_path: Path, expected: str
) -> None:
    """Nobody has to be there, and nothing is deleted."""
    log = bytearray(log_of(killed_in_commit).read_bytes())
    log[len(log) // 2] ^= 0xFF
    warehouse = after(killed_in_commit, tmp_path, bytes(log))
    with pytest.raises(duckdb.Error):
        duckdb.connect(str(warehouse))
    found, aside = recovered(warehouse, store)
    assert found == expected
    (kept,) = aside
    assert kept.read_bytes() == bytes(log)


def test_a_file_that_is_none_is_set_aside_with_its_log(
    killed_in_commit: Path, store: FolderStore, tmp_path: Path, expected: str
) -> None:
    warehouse = after(killed_in_commit, tmp_path, log_of(killed_in_commit).read_bytes())
    warehouse.write_bytes(b"x" * 20_000)
    found, aside = recovered(warehouse, store)
    assert found == expected
    assert len(aside) == 2


def test_a_warehouse_that_is_open_elsewhere_is_left_alone(killed_in_commit: Path, tmp_path: Path) -> None:
    warehouse = after(killed_in_commit, tmp_path, log_of(killed_in_commit).read_bytes())
    hold = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print(c.execute('CHECKPOINT'), flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(warehouse)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert opening.make_openable(warehouse) == []
        process.communicate(b"\n")


def killed_in_checkpoint(store: FolderStore, folder: Path, expected: str, seed: int, times: int) -> None:
    rng = random.Random(seed)
    for number in range(times):
        warehouse = folder / f"{number}.duckdb"
        died(warehouse, store, rng.uniform(0.0001, 0.02))
        assert recovered(warehouse, store)[0] == expected, f"seed {seed}, life {number}"


def test_killed_while_the_log_is_written_into_the_file(store: FolderStore, tmp_path: Path, expected: str) -> None:
    """Test 10, a sample: kill -9 in CHECKPOINT."""
    killed_in_checkpoint(store, tmp_path, expected, seed=10, times=2)


@pytest.mark.long
def test_killed_often_while_the_log_is_written_into_the_file(store: FolderStore, tmp_path: Path, expected: str) -> None:
    """Test 10: kill -9 in CHECKPOINT, 200 times."""
    killed_in_checkpoint(store, tmp_path, expected, seed=int(os.environ.get("APIARY_SEED", "1")), times=200)


# from the landing alone -----------------------------------------------------------------------------------------------


def test_the_wire_is_rebuilt_from_the_landing_and_takes_over(store: FolderStore, tmp_path: Path, expected: str) -> None:
    warehouse = tmp_path / "apiary.duckdb"
    with duckdb.connect(str(warehouse)) as connection:
        load.prepare(connection)
        load.load(connection, store, landing.pending(store, set()))
        connection.execute("INSERT INTO wire.released BY NAME SELECT 'acme' AS tenant_id, 'a' AS record_id")
        connection.execute("CREATE SCHEMA billing")
        connection.execute("CREATE TABLE billing.periods (id INTEGER PRIMARY KEY)")
        connection.execute("INSERT INTO billing.periods VALUES (7)")
    done = rebuild.rebuild(warehouse, store, admission=everybody, with_marts=False)
    assert (done.differences, done.loaded.loaded) == ([], 24)
    assert done.compared >= 13
    before = rebuild.put_in_place(done, warehouse)
    assert before is not None
    assert before.exists()
    with duckdb.connect(str(warehouse)) as connection:
        load.prepare(connection)
        assert load.wire_hash(connection) == expected
        assert connection.execute("SELECT record_id FROM wire.released").fetchall() == [("a",)]
        assert connection.execute("SELECT id FROM billing.periods").fetchall() == [(7,)]
        with pytest.raises(duckdb.ConstraintException):
            connection.execute("INSERT INTO billing.periods VALUES (7)")
        connection.execute(
            "UPDATE wire.llm_turns SET input_tokens = 2 WHERE record_id IN (SELECT min(record_id) FROM wire.llm_turns)"
        )
    registry.revoke(tmp_path, SERVER, since=START + timedelta(minutes=20))
    again = rebuild.rebuild(warehouse, store, admission=registry.admission_policy(tmp_path, store), with_marts=False)
    changed = {difference.table for difference in again.differences}
    assert changed == {"wire.llm_turns", "wire.node_steps"}
    assert load_count(warehouse) > load_count(again.aside), "the one before is as it was, until somebody accepts"


def load_count(warehouse: Path) -> int:
    with duckdb.connect(str(warehouse)) as connection:
        found = connection.execute("SELECT count(*) FROM wire.node_steps").fetchone()
    assert found is not None
    return int(found[0])


@pytest.mark.services
def test_marts_are_the_same_from_the_landing_alone(warehouse: Warehouse, store: FolderStore, tmp_path: Path) -> None:
    """Test 11: what was loaded in two parts, the later one first, against a rebuild from objects only."""
    arrivals = landing.pending(store, set())
    for part in (arrivals[12:], arrivals[:12]):
        with warehouse.connect() as connection:
            load.prepare(connection)
            load.load(connection, store, part)
    warehouse.run()
    with warehouse.connect() as connection:
        connection.execute("CHECKPOINT")
    copy = tmp_path / warehouse.path.name  # dbt keeps the file open in this process
    shutil.copy(warehouse.path, copy)
    done = rebuild.rebuild(copy, store, admission=everybody)
    assert done.differences == []
    assert done.compared > 25
