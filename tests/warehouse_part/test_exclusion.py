"""A device or a tenant that is taken out of the wire leaves what would be there without it, and comes back whole.

Does not belong here: what the marts make of it (tests/dbt/test_exclusion.py), finding who is to go (test_isolation.py).
"""

import json
import random
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pipelines import cli
from pipelines.contract.wire import TABLES
from pipelines.errors import UsageError
from pipelines.store import FolderStore
from pipelines.warehouse import exclusion, landing, load, quarantine, registry
from pipelines.warehouse.landing import AdmissionPolicy
from pipelines.warehouse.registry import Register
from tests.warehouse_part.batches import CLONE, LAPTOP, SERVER, START, MemoryStore, batch, record, row, turn, wire

DEVICES = (LAPTOP, CLONE, SERVER)


def shared_records(store: MemoryStore, seed: int) -> None:
    """Three devices of one tenant and one of another that hold copies of each other's records, equal and not."""
    rng = random.Random(seed)
    for minute in range(12):
        device, tenant = rng.choice([*((device, "acme") for device in DEVICES), (LAPTOP, "bolt")])
        tables: dict[str, list[dict[str, Any]]] = {"llm_turns": [], "sessions": [], "source_files": []}
        for number in rng.sample(range(9), 4):
            session = record(f"session {rng.choice((number, number, 3))}")
            tokens = rng.choice((1, 1, 1, 2))
            tables["llm_turns"].append(turn(number, session_id=session, output_tokens=tokens))
            tables["sessions"].append(row("sessions", number, session_id=session, observed_at=START))
        tables["source_files"].append(row("source_files", minute, run=minute))
        batch(store, tables, tenant=tenant, device=device, seq=minute + 1, minute=minute)


def loaded(store: MemoryStore, admission: AdmissionPolicy = landing.everybody) -> duckdb.DuckDBPyConnection:
    connection = wire()
    load.load(connection, store, landing.pending(store, ()), admission=admission)
    return connection


def books(connection: duckdb.DuckDBPyConnection) -> list[Any]:
    """What the ledger says, but for the numbers of loads and of attempts."""
    return [
        connection.execute(f"SELECT * EXCLUDE ({left_out}) FROM wire.{table} ORDER BY ALL").fetchall()
        for table, left_out in (
            (
                "batches",
                "ingest_seq, attempts, loaded_at, rows_new, rows_duplicate, rows_conflict, input_tokens_new,"
                " output_tokens_new",
            ),
            ("batch_objects", "_ingest_seq"),
        )
    ] + connection.execute(
        "SELECT sum(rows_in), sum(rows_new), sum(rows_new + rows_duplicate + rows_conflict) FROM wire.batches"
    ).fetchall()


@pytest.mark.parametrize("seed", range(5))
def test_what_stays_is_what_would_be_there_without_them(seed: int) -> None:
    """Copies of a record that others hold too stay, with the facts, the session and the device that theirs say."""
    store = MemoryStore()
    shared_records(store, seed)
    before = loaded(store)
    out = Register(devices={CLONE: registry.Entry(expelled_at=START.isoformat())}).refusal
    calm = loaded(store, out)
    reasons = exclusion.refused(before, out)
    whole = load.wire_hash(before)
    done = exclusion.exclude(before, store, reasons, admission=out)
    assert done.batches == len(reasons) > 0
    assert load.wire_hash(before) == load.wire_hash(calm) != whole
    assert books(before) == books(calm)
    assert (
        before.execute("SELECT count(*) FROM wire.row_counts").fetchone()
        == calm.execute("SELECT count(*) FROM wire.row_counts").fetchone()
    )

    back = quarantine.replay(before, store, quarantine.Choice(reason=registry.EXPELLED_DEVICE))
    assert back.loaded == len(reasons)
    assert {row for (row,) in before.execute("SELECT DISTINCT status FROM wire.batches").fetchall()} == {"loaded"}
    count = "SELECT count(*) FROM wire.llm_turns"
    assert before.execute(count).fetchone() == loaded(store).execute(count).fetchone()


def test_every_session_that_loses_a_row_is_looked_at_again() -> None:
    store = MemoryStore()
    tables = {
        table.name: [
            row(table.name, 1) | {c: record(f"{table.name} {c}") for c in load.SESSION_COLUMNS if c in table.by_name}
        ]
        for table in TABLES
    }
    batch(store, tables)
    connection = loaded(store)
    named = {
        record(f"{table.name} {column}")
        for table in TABLES
        for column in load.SESSION_COLUMNS
        if column in table.by_name
    }
    connection.execute("DELETE FROM wire.touched_sessions")
    out = Register(tenants={"acme": START.isoformat()}).refusal
    exclusion.exclude(connection, store, exclusion.refused(connection, out), admission=out)
    touched = connection.execute("SELECT DISTINCT session_id FROM wire.touched_sessions").fetchall()
    assert {session for (session,) in touched} == named
    assert {connection.execute(f"SELECT count(*) FROM wire.{t.name}").fetchone() for t in TABLES} == {(0,)}


@pytest.mark.parametrize("point", ["exclude.before_commit", "exclude.after_commit"])
def test_killed_in_between_the_next_load_goes_on(point: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    shared_records(store, 1)
    connection = loaded(store)
    out = Register(devices={CLONE: registry.Entry(expelled_at=START.isoformat())}).refusal

    def die(name: str) -> None:
        if name == point:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(exclusion, "fp", die)
        with pytest.raises(KeyboardInterrupt):
            exclusion.exclude(connection, store, exclusion.refused(connection, out), admission=out)
    quarantine.replay_what_may_pass(connection, store, admission=out)
    exclusion.exclude(connection, store, exclusion.refused(connection, out), admission=out)
    assert load.wire_hash(connection) == load.wire_hash(loaded(store, out))


def test_a_batch_that_is_no_longer_in_the_landing_keeps_its_rows_and_may_be_expelled() -> None:
    store = MemoryStore()
    kept = batch(store, {"llm_turns": [turn(1), turn(2)]}, device=LAPTOP, seq=1)
    going = batch(store, {"llm_turns": [turn(2), turn(3)]}, device=CLONE, seq=1, minute=1)
    connection = loaded(store)
    store.objects.clear()
    out = Register(devices={CLONE: registry.Entry(expelled_at=START.isoformat())}).refusal
    exclusion.exclude(connection, store, exclusion.refused(connection, out), admission=out)
    found = connection.execute("SELECT DISTINCT _manifest_key FROM wire.llm_turns").fetchall()
    assert found == [(kept.key,)]
    assert connection.execute("SELECT manifest_key FROM wire.batches WHERE status = 'quarantined'").fetchall() == [
        (going.key,)
    ]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A warehouse with two devices, and nothing of it built: the commands need no model."""
    for name, value in (("HOME", tmp_path), ("STORE", (tmp_path / "store").as_uri())):
        monkeypatch.setenv(f"APIARY_{name}", str(value))
    memory = MemoryStore()
    batch(memory, {"llm_turns": [turn(1)]}, device=LAPTOP)
    batch(memory, {"llm_turns": [turn(1), turn(2)]}, device=CLONE, minute=1)
    batch(memory, {"llm_turns": [turn(9)]}, device=SERVER, tenant="bolt", minute=2)
    store = FolderStore(tmp_path / "store")
    for key, data in memory.objects.items():
        store.put(key, data)
    warehouse = tmp_path / "warehouse" / "apiary.duckdb"
    warehouse.parent.mkdir()
    with duckdb.connect(str(warehouse)) as connection:
        load.prepare(connection)
        load.load(connection, store, landing.pending(store, ()))
    return warehouse


def turns(warehouse: Path) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        return connection.execute("SELECT tenant_id, count(*) FROM wire.llm_turns GROUP BY ALL ORDER BY ALL").fetchall()


def test_the_commands_of_the_runbook_take_a_device_out_and_put_it_back(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert turns(home) == [("acme", 2), ("bolt", 1)]
    assert cli.main(["devices", "expel", CLONE]) == 0
    assert f"apiary devices readmit {CLONE}" in capsys.readouterr().out
    assert turns(home) == [("acme", 1), ("bolt", 1)]
    assert cli.main(["quarantine", "list", "--reason", "expelled_device", "--json"]) == 0
    (refused,) = json.loads(capsys.readouterr().out)
    assert refused["device_id"] == CLONE
    assert cli.main(["devices", "list", "--json"]) == 0
    states = {row["device"]: row["state"].split(" ")[0] for row in json.loads(capsys.readouterr().out)}
    assert states == {LAPTOP: "open", CLONE: "expelled", SERVER: "open"}
    assert cli.main(["devices", "readmit", CLONE]) == 0
    assert turns(home) == [("acme", 2), ("bolt", 1)]

    assert cli.main(["devices", "expel", "--tenant", "acme"]) == 0
    assert turns(home) == [("bolt", 1)]
    assert cli.main(["devices", "readmit", "--tenant", "acme"]) == 0
    assert turns(home) == [("acme", 2), ("bolt", 1)]
    for wrong in (["expel"], ["readmit", CLONE], ["readmit", "--tenant", "bolt"], ["expel", CLONE, "--tenant", "acme"]):
        assert cli.main(["devices", *wrong]) == 2


def test_a_register_tells_who_is_expelled_from_who_was_never_spoken_of(tmp_path: Path) -> None:
    registry.expel(tmp_path, LAPTOP, since=START)
    registry.close(tmp_path, is_closed=True)
    registry.readmit(tmp_path, LAPTOP)
    assert registry.load(tmp_path).devices == {}, "or a closed register would let it in"
    with pytest.raises(UsageError, match="not expelled"):
        registry.readmit(tmp_path, LAPTOP)
    registry.admit(tmp_path, LAPTOP, tenant="acme", region="eu")
    registry.expel(tmp_path, LAPTOP, since=START)
    registry.readmit(tmp_path, LAPTOP)
    assert registry.load(tmp_path).devices[LAPTOP].tenant == "acme"
    (tmp_path / "devices.json").write_text('{"is_closed": false, "devices": {}}', "utf-8")
    assert registry.load(tmp_path) == Register(), "as an earlier release wrote it"


def test_what_is_said_of_an_erased_device_is_forgotten(tmp_path: Path) -> None:
    arrival = batch(MemoryStore(), {"llm_turns": [turn(1)]})
    registry.set_aside(tmp_path, {arrival.key: "failed_model:x"})
    assert registry.load(tmp_path).refusal(arrival, landing.Manifest("", "ada")) == "failed_model:x"
    registry.forget(tmp_path, {LAPTOP})
    assert registry.load(tmp_path).batches == {}
