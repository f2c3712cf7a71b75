"""Many devices at once, cloned ones, two with one id, hostile texts, two runs side by side: each record once."""

import os
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pipelines.contract.wire import BY_NAME, TABLES
from pipelines.warehouse import landing, load
from pipelines.warehouse.landing import Arrival
from tests.warehouse_part.batches import CLONE, LAPTOP, MemoryStore, batch, record, row, turn, wire

pytestmark = pytest.mark.services  # fleets of up to 150 devices

INJECTIONS = [
    part.format(name=name)
    for name in ("llm_turns", "wire.batches", "x'", 'x"', "information_schema.tables")
    for part in (
        "'; DROP TABLE {name}; --", "' OR '1'='1", '"; DROP TABLE {name}; --', "1; SELECT * FROM {name}", "') UNION SELECT 1 --",  # noqa: E501
        "' UNION ALL SELECT NULL FROM {name} --", "admin'--", "'||(SELECT 1 FROM {name})||'", "\\'; DELETE FROM {name}; --",  # noqa: E501
        "1 AND 1=1", "%27 OR 1=1", "'; ATTACH '{name}' AS x; --", "'; COPY {name} TO 'x'; --", "$$; DROP TABLE {name}; $$",  # noqa: E501
        "/* */ OR 1=1 /*{name}*/", "' AND sleep(5) --", "{name} WHERE 1=1", "'; INSTALL httpfs; --", "x{name}\0--",
        "read_text('{name}')", "' HAVING 1=1 --", "ORDER BY 99 --{name}", "\u02bc OR 1=1 --", "'; PRAGMA database_list; --",  # noqa: E501
        "'; SET enable_external_access=true; --", "{{{{ ref('{name}') }}}}", "{{% do run_query('{name}') %}}", "=cmd|'{name}'!A1",  # noqa: E501
        "@SUM({name})", "{name}' LIMIT 1 OFFSET 1 --",
    )
]  # fmt: skip


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def devices(rng: random.Random, store: MemoryStore, count: int, batches: int) -> list[Arrival]:
    """Devices that share some of their records, as forks and copied homes do."""
    arrivals = []
    for number in range(count):
        for seq in range(1, batches + 1):
            shared = rng.randrange(count * batches // 2)
            rows = {"llm_turns": [turn(shared), turn((number, seq))], "node_steps": [row("node_steps", shared)]}
            arrivals.append(batch(store, rows, device=record(number), seq=seq, minute=rng.randrange(600)))
    return arrivals


def loaded_in_parts(store: MemoryStore, arrivals: list[Arrival], parts: int) -> tuple[str, tuple[Any, ...]]:
    with wire() as connection:
        size = -(-len(arrivals) // parts)
        for start in range(0, len(arrivals), size):
            load.load(connection, store, arrivals[start : start + size])
            load.load(connection, store, arrivals[: start + size : 7])  # and some of it again
        totals = connection.execute(
            "SELECT count(*), count(DISTINCT record_id), sum(input_tokens) FROM wire.llm_turns"
        ).fetchone()
        assert totals is not None
        return load.wire_hash(connection), totals


def test_fifty_devices_in_any_order(store: MemoryStore) -> None:
    """Test 43: random order and duplicated delivery of all manifests of 50 devices give an identical warehouse."""
    seed = int(os.environ.get("APIARY_SEED", "43"))
    rng = random.Random(seed)
    arrivals = devices(rng, store, 50, 3)
    expected = loaded_in_parts(store, arrivals, 1)
    for parts in (2, 5):
        rng.shuffle(arrivals)
        assert loaded_in_parts(store, arrivals, parts) == expected, f"seed {seed}"


def test_150_devices_at_once(store: MemoryStore) -> None:
    """Test 76, shortened: a burst of 150 devices is loaded exactly, from one store."""
    arrivals = devices(random.Random(76), store, 150, 1)
    _, (count, distinct, _) = loaded_in_parts(store, arrivals, 1)
    assert count == distinct == 150 + len({record(f"llm_turns {n}") for n in _shared(store)})


def _shared(store: MemoryStore) -> set[int]:
    rng = random.Random(76)
    found = set()
    for _ in range(150):
        found.add(rng.randrange(150 // 2))
        rng.randrange(600)
    return found


def test_a_cloned_state_is_seen_and_counts_once(store: MemoryStore) -> None:
    """Test 44: two hosts with one state seal different batches of one number; both load, both are in the ledger."""
    chain = [batch(store, {"llm_turns": [turn(1)]}, seq=1, minute=0)]
    chain += [batch(store, {"llm_turns": [turn(1), turn(n)]}, seq=2, minute=n) for n in (2, 3)]
    with wire() as connection:
        done = load.load(connection, store, chain)
        assert (done.loaded, done.rows_new, done.rows_duplicate) == (3, 3, 2)
        forks = connection.execute(
            "SELECT device_id, epoch, seq, count(DISTINCT manifest_sha256) FROM wire.batches GROUP BY ALL HAVING count(*) > 1"  # noqa: E501
        ).fetchall()
        assert [(device, seq, count) for device, _, seq, count in forks] == [(LAPTOP, 2, 2)]


def test_two_devices_with_one_id_count_each_record_once(store: MemoryStore) -> None:
    """Test 58: enrolled twice with the same id, also under two tenants."""
    arrivals = [
        batch(store, {"llm_turns": [turn(1), turn(2)]}, seq=1, minute=0),
        batch(store, {"llm_turns": [turn(2), turn(3)]}, seq=1, minute=1, change=lambda m: m.update(user="bob")),
        batch(store, {"llm_turns": [turn(2)]}, seq=1, minute=2, tenant="bolt"),
    ]
    with wire() as connection:
        assert load.load(connection, store, arrivals).rows_new == 4
        twins = connection.execute(
            "SELECT device_id FROM wire.batches GROUP BY device_id HAVING count(DISTINCT (tenant_id, user_id)) > 1"
        ).fetchall()
        assert twins == [(LAPTOP,)]
        counted = "SELECT count(*), count(DISTINCT (tenant_id, record_id)) FROM wire.llm_turns"
        assert connection.execute(counted).fetchone() == (4, 4)


def test_the_first_story_stays_and_the_other_is_set_aside(store: MemoryStore) -> None:
    """Test 49: the same record with other content: a conflict with both hashes."""
    first = batch(store, {"llm_turns": [turn(1, output_tokens=10)]}, minute=0)
    other = batch(store, {"llm_turns": [turn(1, output_tokens=99)]}, device=CLONE, minute=1)
    with wire() as connection:
        load.load(connection, store, [other, first][::-1])
        assert connection.execute("SELECT output_tokens FROM wire.llm_turns").fetchall() == [(10,)]
        kept, aside = connection.execute("SELECT kept_hash, other_hash FROM wire.conflicts").fetchall()[0]
        assert kept != aside


def schema(connection: duckdb.DuckDBPyConnection) -> list[tuple[Any, ...]]:
    return connection.execute(
        "SELECT database_name, schema_name, table_name, sql FROM duckdb_tables() ORDER BY ALL"
    ).fetchall()


def test_no_text_becomes_sql(store: MemoryStore) -> None:
    """Test 59: each injection as every string value, every part of a manifest and of a key: refused, nothing changed."""  # noqa: E501
    assert len(INJECTIONS) == 150
    arrivals = []
    with wire() as connection:
        before = schema(connection)
        for number, text in enumerate(INJECTIONS):
            table = TABLES[number % len(TABLES)]
            strings = [column.name for column in table.columns if column.type == "string"]
            rows = [row(table.name, 1, **{name: text}) for name in strings]
            arrivals += [batch(store, {table.name: [one]}, seq=100 * number + n) for n, one in enumerate(rows)]
            changes: list[Callable[[Any], object]] = [
                lambda m, text=text: m.update(user=text), lambda m, text=text: m.update(consent_id=text),
                lambda m, text=text: m.update(uploader_version=text), lambda m, text=text: m["objects"][0].update(table=text),  # noqa: E501
                lambda m, text=text: m["objects"][0].update(key=text), lambda m, text=text: m.update(tenant=text),
            ]  # fmt: skip
            for n, change in enumerate(changes):
                arrivals.append(batch(store, {"tasks": []}, seq=100 * number + 50 + n, change=change))
            assert (
                landing.parse_manifest_key(f"landing/v1/{text}/acme/{LAPTOP}/{'e' * 16}/m/0000000001-{'a' * 16}.json")
                is None
            )
        done = load.load(connection, store, arrivals)
        assert (done.loaded, done.quarantined) == (0, len(arrivals))
        assert schema(connection) == before
        ledger = str(connection.execute("SELECT * FROM wire.batches").fetchall())
        assert not [text for text in INJECTIONS if text in ledger]
        assert all(connection.execute(f"SELECT count(*) FROM wire.{name}").fetchone() == (0,) for name in BY_NAME)


def test_two_loads_side_by_side_load_each_batch_once(store: MemoryStore, tmp_path: Path) -> None:
    """Test 62: the job twice in parallel: one of them may fail, and then everything is there once."""
    arrivals = [batch(store, {"llm_turns": [turn(n)]}, seq=n) for n in range(1, 41)]
    with duckdb.connect(str(tmp_path / "x.duckdb")) as connection:
        load.prepare(connection)
        failed: list[BaseException] = []

        def run() -> None:
            try:
                load.load(connection.cursor(), store, arrivals)
            except duckdb.Error as error:
                failed.append(error)

        threads = [threading.Thread(target=run) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(failed) < 2
        load.load(connection, store, arrivals)
        counted = "SELECT count(*), count(DISTINCT record_id) FROM wire.llm_turns"
        assert connection.execute(counted).fetchone() == (40, 40)
        assert connection.execute("SELECT count(*) FROM wire.batches").fetchone() == (40,)
