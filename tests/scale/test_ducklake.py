"""Several load one DuckLake at once: no batch is lost or there twice, and nobody who reads waits.

Does not belong here: what the models make of it (test_marts.py).
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import boto3
import duckdb
import pytest

from bench.scale import postgres
from bench.tiny_batches import fleet
from pipelines.engine import SETTING, Engine
from pipelines.store import FolderStore
from pipelines.warehouse import (
    database,
    ducklake,
    ducklake_copy,
    exclusion,
    isolation,
    landing,
    load,
    quarantine,
    registry,
)
from tests.object_server import NOT_INSTALLED, PROGRAM, object_server

REPOSITORY = Path(__file__).resolve().parents[2]
BATCHES = 1_024
SECONDS = 600.0
pytestmark = pytest.mark.scale

Settings = dict[str, str]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FolderStore:
    """Batches of one row each, from twenty devices."""
    made = FolderStore(tmp_path_factory.mktemp("store"))
    fleet(made, BATCHES, 20)
    return made


@pytest.fixture
def lake(address: str, tmp_path: Path, request: pytest.FixtureRequest) -> Settings:
    return postgres.new_lake(address, request.node.name, tmp_path / "data")


def loader(lake: Settings, store: FolderStore) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "tests.scale.loader", store.root.as_uri()], env=os.environ | lake, cwd=REPOSITORY,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def ended(process: "subprocess.Popen[str]") -> dict[str, int]:
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    said: dict[str, int] = json.loads(out)
    return said


def wait_for(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.1)


def answered(connection: duckdb.DuckDBPyConnection) -> int:
    """How many batches the ledger has an answer for; 0 before there is a ledger."""
    try:
        (count,) = connection.execute("SELECT count(*) FROM wire.batches").fetchone() or (0,)
    except duckdb.CatalogException:
        return 0
    return int(count)


def wire_of(connection: duckdb.DuckDBPyConnection) -> tuple[str, list[tuple[object, ...]]]:
    """What the wire and its ledger hold, but for the number and the time of each load."""
    lines = connection.execute(
        "SELECT * EXCLUDE (ingest_seq, loaded_at), (SELECT count(*) FROM wire.row_counts)"
        " FROM wire.batches ORDER BY manifest_key"
    )
    return load.wire_hash(connection), lines.fetchall()


def loaded_alone(store: FolderStore, path: Path) -> tuple[str, list[tuple[object, ...]]]:
    """The same landing in a DuckDB file."""
    with duckdb.connect(str(path)) as connection:
        load.prepare(connection)
        load.load(connection, store, landing.pending(store, set()))
        return wire_of(connection)


def test_four_at_once_count_every_batch_once(lake: Settings, store: FolderStore, tmp_path: Path) -> None:
    processes = [loader(lake, store) for _ in range(4)]
    waits: list[float] = []
    counts: list[int] = []
    wait_for((Path(lake[ducklake.DATA]) / "wire").exists)  # its catalog is made
    with ducklake.connect(lake) as reader:
        while any(process.poll() is None for process in processes):
            begun = time.monotonic()
            counts.append(answered(reader))
            waits.append(time.monotonic() - begun)
            time.sleep(0.1)
        done = [ended(process) for process in processes]
        assert sum(one["received"] for one in done) == sum(one["rows_new"] for one in done) == BATCHES
        assert sum(one["rows_duplicate"] for one in done) == 0
        assert answered(reader) == BATCHES
        assert wire_of(reader) == loaded_alone(store, tmp_path / "apiary.duckdb")
    assert counts == sorted(counts), "who reads sees whole loads"
    assert len({count for count in counts if 0 < count < BATCHES}) >= 3, "it was read while it was written"
    assert max(waits) < 30, "no reader waits for a writer"


def test_a_loader_that_is_killed_leaves_nothing_half_done(lake: Settings, store: FolderStore, tmp_path: Path) -> None:
    killed = loader(lake, store)
    wait_for((Path(lake[ducklake.DATA]) / "wire").exists)
    with ducklake.connect(lake) as reader:
        wait_for(lambda: answered(reader) >= 96)
        killed.kill()
        killed.communicate()
        before = answered(reader)
        assert 96 <= before < BATCHES
        assert before % 32 == 0, "a transaction of 32 batches is there or not"
        done = ended(loader(lake, store))
        assert done["received"] == done["rows_new"] == BATCHES - before
        assert wire_of(reader) == loaded_alone(store, tmp_path / "apiary.duckdb")


def test_what_was_refused_is_judged_again(lake: Settings, store: FolderStore) -> None:
    """A line of the ledger is replaced, where there is no key by which to replace it."""
    with ducklake.connect(lake) as connection:
        load.prepare(connection)
        load.prepare(connection)  # the second time it changes nothing
        arrivals = landing.pending(store, set())[:3]

        def nobody(*_: object) -> str:
            return "unknown_device"

        assert load.load(connection, store, arrivals, admission=nobody).quarantined == 3
        keys = {arrival.key for arrival in arrivals}
        assert load.load(connection, store, arrivals, again=keys).rows_new == 3
        lines = connection.execute("SELECT status, attempts, ingest_seq FROM wire.batches").fetchall()
        assert lines == [("loaded", 2, 2)] * 3


def test_a_batch_at_fault_is_found_on_a_copy_and_taken_out(
    lake: Settings, store: FolderStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in lake.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(SETTING, Engine.DUCKLAKE)
    file = tmp_path / "apiary.duckdb"
    arrivals = landing.pending(store, set())[:40]
    guilty = arrivals[17].key
    assert not database.exists(file)
    assert registry.listed(tmp_path, file) == []
    with database.connect(file) as connection:
        load.prepare(connection)
        load.load(connection, store, arrivals)

    def fails(copy: Path) -> bool:
        with duckdb.connect(str(copy)) as trial:
            found = trial.execute("SELECT count(*) FROM wire.llm_turns WHERE _manifest_key = ?", [guilty])
            return found.fetchone() == (1,)

    assert database.exists(file)
    assert sum(device["batches"] for device in registry.listed(tmp_path, file)) == 40
    assert isolation.culprits(file, fails) == [guilty]
    with database.connect(file) as connection:
        reasons = {guilty: "failed_model:x"}
        done = exclusion.exclude(connection, store, reasons, admission=landing.everybody)
        assert (done.batches, done.rows, done.reloaded) == (1, 1, 0)
        assert connection.execute("SELECT count(*) FROM wire.llm_turns").fetchone() == (39,)
        assert quarantine.reasons(connection) == {"failed_model:x": 1}
        assert load.load(connection, store, arrivals, again={guilty}).rows_new == 1
    assert not file.exists()


def test_tables_are_joined_as_a_query_names_them(lake: Settings) -> None:
    """Not two of them by the tenant alone, which is every row with every other one of a tenant."""
    rows = "SELECT n % 3 AS tenant_id, n % 1000 AS session_id, n AS call_id FROM range({}) AS numbers (n)"
    with ducklake.connect(lake) as connection:
        for table in ("calls", "facts"):
            connection.execute(f"CREATE TABLE {table} AS {rows.format(100_000)}")
        connection.execute("CREATE TABLE touched AS SELECT DISTINCT tenant_id, session_id FROM calls")
        query = (
            "SELECT count(*) FROM facts JOIN touched USING (tenant_id, session_id)"
            " JOIN (FROM calls WHERE call_id IS NOT NULL) AS calls USING (tenant_id, call_id)"
        )
        assert conditions(connection, query) == [2, 2]
        connection.execute("RESET disabled_optimizers")
        assert conditions(connection, query) == [1, 3], "DuckDB estimates better now: leave out GUESSING"


def conditions(connection: duckdb.DuckDBPyConnection, query: str) -> list[int]:
    """By how many columns each join of a query's plan joins, from the innermost one."""

    def joins(node: dict[str, Any]) -> Iterator[int]:
        for child in node["children"]:
            yield from joins(child)
        if node["name"].strip() == "HASH_JOIN":
            found = node["extra_info"]["Conditions"]
            yield 1 if isinstance(found, str) else len(found)

    _, plan = connection.execute(f"EXPLAIN (FORMAT json) {query}").fetchone() or ("", "[]")
    return [number for node in json.loads(plan) for number in joins(node)]


def test_settings_that_are_missing_are_named(lake: Settings) -> None:
    with pytest.raises(ducklake.DuckLakeError, match="APIARY_DUCKLAKE_DATA is not set"):
        ducklake.connect({ducklake.CATALOG: lake[ducklake.CATALOG]})
    wrong = lake[ducklake.CATALOG].rpartition("/")[0] + "/nothing"
    with pytest.raises(ducklake.DuckLakeError, match="could not be attached") as found:
        ducklake.connect(lake | {ducklake.CATALOG: wrong})
    assert wrong not in str(found.value), "with its password"


def test_a_warehouse_moves_into_it_and_back(
    lake: Settings, store: FolderStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in lake.items():
        monkeypatch.setenv(name, value)
    first, last = tmp_path / "apiary.duckdb", tmp_path / "back.duckdb"
    arrivals = landing.pending(store, set())
    with duckdb.connect(str(first)) as connection:
        load.prepare(connection)
        load.load(connection, store, arrivals[:64])
        connection.execute("INSERT INTO wire.released VALUES ('acme', 'r', now(), 7)")
        connection.execute("CREATE SCHEMA billing")
        connection.execute("CREATE TABLE billing.price_book AS SELECT 1.50::DECIMAL(38, 20) AS unit_price")
    ducklake_copy.into_lake(first)
    with pytest.raises(ducklake_copy.CopyError, match="an empty warehouse alone"):
        ducklake_copy.into_lake(first)
    with ducklake.connect() as connection:
        assert load.load(connection, store, arrivals[:96]).rows_new == 32, "what was loaded before is known"
        assert connection.execute("SELECT max(ingest_seq) FROM wire.batches").fetchone() == (8,), "after the decision"
    ducklake_copy.into_file(last)
    with pytest.raises(ducklake_copy.CopyError, match="is there already"):
        ducklake_copy.into_file(last)
    with duckdb.connect(str(last)) as connection:
        assert connection.execute("SELECT record_id FROM wire.released").fetchall() == [("r",)]
        assert connection.execute("SELECT unit_price FROM billing.price_book").fetchall() == [(Decimal("1.5"),)]
        load.prepare(connection)
        load.load(connection, store, arrivals)
        found = wire_of(connection)
    assert found == loaded_alone(store, tmp_path / "alone.duckdb")


def test_its_data_may_lie_in_object_storage(lake: Settings, store: FolderStore, tmp_path: Path) -> None:
    if not PROGRAM.exists():
        pytest.skip(NOT_INSTALLED)
    arrivals = landing.pending(store, set())[:64]
    with object_server(tmp_path / "objects") as server:
        client = boto3.client(
            "s3", endpoint_url=server.endpoint, aws_access_key_id=server.access_key,
            aws_secret_access_key=server.secret_key, region_name="us-east-1",
        )  # fmt: skip
        client.create_bucket(Bucket="lake")
        there = lake | server.environment | {ducklake.DATA: "s3://lake/warehouse"}
        for count in (32, 64):
            with ducklake.connect(there) as connection:
                load.prepare(connection)
                assert load.load(connection, store, arrivals[:count]).rows_new == 32
        listed = client.list_objects_v2(Bucket="lake", Prefix="warehouse/wire/")["Contents"]
        assert any(found["Key"].endswith(".parquet") for found in listed)
        with ducklake.connect(there) as connection:
            found = connection.execute("SELECT count(*), count(DISTINCT record_id) FROM wire.llm_turns").fetchone()
    assert found == (64, 64)
    assert not (tmp_path / "data").exists()
