"""Refused batches: listed with their reasons, judged again after a fix, loaded once; who may send at all."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pipelines import cli
from pipelines.contract.ddl import BOOKS
from pipelines.errors import UsageError
from pipelines.store import FolderStore
from pipelines.warehouse import gate, landing, load, quarantine, registry, verify
from pipelines.warehouse.quarantine import Choice
from pipelines.warehouse.registry import RegisterDamagedError
from tests.warehouse_part.batches import CLONE, LAPTOP, START, MemoryStore, batch, turn, wire


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def connection() -> Any:
    with wire() as opened:
        yield opened


def statuses(connection: duckdb.DuckDBPyConnection) -> list[tuple[Any, ...]]:
    return connection.execute("SELECT seq, status, reason, attempts FROM wire.batches ORDER BY seq").fetchall()


def spoiled(store: MemoryStore, seq: int) -> tuple[str, bytes]:
    """Damage the object of a batch; its key and what it was."""
    (key,) = (key for key in store.objects if f"/d/{seq:010}-" in key)
    body = store.objects[key]
    store.objects[key] = b"x"
    return key, body


def test_what_was_refused_is_loaded_once_after_the_fix(
    store: MemoryStore, connection: duckdb.DuckDBPyConnection
) -> None:
    """Test 51: replay of a quarantined batch loads it once; of a loaded one, nothing."""
    arrivals = [batch(store, {"llm_turns": [turn(n)]}, seq=n, minute=n) for n in range(1, 4)]
    key, body = spoiled(store, 2)
    load.load(connection, store, arrivals)
    assert statuses(connection) == [
        (1, "loaded", None, 1),
        (2, "quarantined", "hash_mismatch", 1),
        (3, "loaded", None, 1),
    ]
    still = quarantine.replay(connection, store, Choice())
    assert (still.received, still.quarantined) == (1, 1)
    assert statuses(connection)[1] == (2, "quarantined", "hash_mismatch", 2)
    store.objects[key] = body
    done = quarantine.replay(connection, store, Choice(reason="hash_mismatch"))
    assert (done.loaded, done.rows_new) == (1, 1)
    assert statuses(connection)[1] == (2, "loaded", None, 3)
    assert quarantine.replay(connection, store, Choice()) == load.Loaded()
    assert load.load(connection, store, arrivals, again={arrival.key for arrival in arrivals[:0]}) == load.Loaded()
    again = load.load(connection, store, arrivals, again={arrivals[0].key})
    assert (again.rows_new, again.rows_duplicate) == (0, 1)
    assert connection.execute("SELECT count(*), count(DISTINCT record_id) FROM wire.llm_turns").fetchone() == (3, 3)
    lines = "SELECT count(*), count(DISTINCT manifest_key) FROM wire.batch_objects"
    assert connection.execute(lines).fetchone() == (3, 3)


def test_a_choice_is_by_reason_moment_and_batch(store: MemoryStore, connection: duckdb.DuckDBPyConnection) -> None:
    bad = [
        batch(store, {"llm_turns": [turn(1, model="x y")]}, seq=1),
        batch(store, {"llm_turns": b"x"}, seq=2),
        batch(store, {"llm_turns": [turn(2, node_id="x y")]}, seq=3),
    ]
    load.load(connection, store, bad)

    def chosen(**options: Any) -> list[int]:
        return [row["seq"] for row in quarantine.batches(connection, Choice(**options))]

    assert chosen() == [1, 2, 3]
    assert chosen(reason="bad_value") == [1, 3]
    assert chosen(reason="bad_value:model") == [1]
    assert chosen(manifest=bad[1].key) == [2]
    assert chosen(since=datetime.now(UTC) + timedelta(hours=1)) == []
    assert chosen(since=datetime.now(UTC) - timedelta(hours=1), reason="unreadable_object") == [2]
    assert quarantine.reasons(connection) == {"bad_value:model": 1, "bad_value:node_id": 1, "unreadable_object": 1}
    with pytest.raises(UsageError, match="not in quarantine"):
        quarantine.objects(connection, "x")


def test_newer_rules_judge_again_by_themselves(
    store: MemoryStore, connection: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that is newer than the warehouse waits for the upgrade, and for nobody."""
    newer = batch(
        store,
        {"llm_turns": [turn(1)]},
        seq=1,
        change=lambda manifest: manifest["objects"][0].update(schema="llm_turns/2"),
    )
    load.load(connection, store, [newer, batch(store, {"llm_turns": b"x"}, seq=2)])
    assert statuses(connection)[0] == (1, "quarantined", "unknown_schema", 1)
    assert quarantine.replay_what_may_pass(connection, store).received == 0, "the rules are the same"
    monkeypatch.setattr(gate, "rules_hash", lambda: "newer")
    known = landing.BY_NAME["llm_turns"]
    monkeypatch.setattr(type(known), "schema_id", property(lambda table: f"{table.name}/2"))
    done = quarantine.replay_what_may_pass(connection, store)
    assert (done.received, done.loaded) == (1, 1)
    assert statuses(connection) == [(1, "loaded", None, 2), (2, "quarantined", "unreadable_object", 1)]
    assert quarantine.replay_what_may_pass(connection, store).received == 0


def test_what_died_by_chance_is_tried_three_times(store: MemoryStore, connection: duckdb.DuckDBPyConnection) -> None:
    """Arrow h: a child killed is no verdict yet."""
    load.load(connection, store, [batch(store, {"llm_turns": b"x"}, seq=1)])
    for attempts in (1, 2, 3):
        assert statuses(connection)[0][3] == attempts
        connection.execute("UPDATE wire.batches SET reason = 'gate_crash'")
        assert quarantine.replay_what_may_pass(connection, store).received == int(attempts < 3)


def test_quarantine_holds_no_value_of_a_batch(store: MemoryStore, connection: duckdb.DuckDBPyConnection) -> None:
    """Test 73, for the warehouse: neither the ledger nor what the commands show."""
    canary = "the-pears-of-acme"
    load.load(connection, store, [
        batch(store, {"llm_turns": [turn(1, model=canary, session_id=canary)]}, seq=1),
        batch(store, {}, seq=2, change=lambda m: m.update(consent_id=canary)),
        batch(store, {}, seq=3, change=lambda m: m.update(uploader_version=canary)),
        batch(store, {"llm_turns": [turn(2)]}, seq=4, change=lambda m: m["objects"][0].update(table=canary)),
        batch(store, {}, seq=5, change=lambda m: m.update(tombstone={"reason": canary, "rows": {canary: 1}})),
    ])  # fmt: skip
    assert len(quarantine.batches(connection, Choice())) == 5
    for book in BOOKS:
        assert canary not in str(connection.execute(f"SELECT * FROM wire.{book}").fetchall())


# who may send ---------------------------------------------------------------------------------------------------------


def test_a_revoked_device_keeps_what_came_before(store: MemoryStore, tmp_path: Path) -> None:
    registry.revoke(tmp_path, LAPTOP, since=START + timedelta(minutes=5))
    arrivals = [batch(store, {"llm_turns": [turn(n)]}, seq=n, minute=n) for n in range(10)]
    for order in (arrivals, arrivals[::-1]):
        with wire() as connection:
            done = load.load(connection, store, order, admission=registry.admission_policy(tmp_path, store))
            assert (done.loaded, done.reasons) == (5, {"revoked_device": 5})
    registry.admit(tmp_path, LAPTOP, tenant="acme", region="eu")
    with wire() as connection:
        assert load.load(connection, store, arrivals, admission=registry.admission_policy(tmp_path, store)).loaded == 10


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"is_closed": false, "devices": {"x": {"since": 1}}}',
                                  '{"is_closed": 0, "devices": {"x": {"revoked_at": "2026-01-01"}}}'])  # fmt: skip
def test_a_damaged_register_stops_the_load(tmp_path: Path, text: str) -> None:
    (tmp_path / "devices.json").write_text(text)
    with pytest.raises(RegisterDamagedError, match="damaged"):
        registry.admission_policy(tmp_path, MemoryStore())


# commands -------------------------------------------------------------------------------------------------------------


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """List, show, fix, replay; verify; devices: as an operator types them."""
    memory, folder = MemoryStore(), FolderStore(tmp_path / "store")
    for n in (1, 2):
        batch(memory, {"llm_turns": [turn(n)]}, seq=n)
    for key, body in memory.objects.items():
        folder.put(key, body)
    home = tmp_path / "home"
    monkeypatch.setenv("APIARY_HOME", str(home))
    monkeypatch.setenv("APIARY_STORE", folder.url)
    assert cli.main(["quarantine", "list"]) == 1
    assert "apiary run" in capsys.readouterr().err
    (home / "warehouse").mkdir(parents=True)
    (damaged,) = (tmp_path / "store").rglob("*0000000002-llm_turns-*.parquet")
    body = damaged.read_bytes()
    damaged.write_bytes(b"x")
    with duckdb.connect(str(home / "warehouse" / "apiary.duckdb")) as connection:
        load.prepare(connection)
        load.load(connection, folder, landing.pending(folder, set()))

    assert cli.main(["quarantine", "list", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["reason"], row["rows_claimed"], row["attempts"]) == ("hash_mismatch", 1, 1)
    assert cli.main(["quarantine", "show", row["manifest_key"]]) == 0
    assert "llm_turns" in capsys.readouterr().out
    assert cli.main(["quarantine", "replay", "--reason", "hash_mismatch"]) == 1, "it is still damaged"
    damaged.write_bytes(body)
    assert cli.main(["quarantine", "replay", "--json"]) == 0
    assert '"loaded": 1' in capsys.readouterr().out.splitlines()[-1]
    assert cli.main(["quarantine", "list"]) == 0
    assert cli.main(["landing", "verify"]) == 0
    damaged.write_bytes(b"y")
    assert cli.main(["landing", "verify", "--json"]) == 1
    (finding,) = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert finding["finding"] == "changed"

    assert cli.main(["devices", "revoke", "x"]) == 2
    assert cli.main(["devices", "revoke", LAPTOP, "--since", "2026-01-01"]) == 0
    assert cli.main(["devices", "admit", CLONE, "--tenant", "acme", "--region", "eu"]) == 0
    assert cli.main(["devices", "admit", CLONE, "--tenant", "A/..", "--region", "eu"]) == 2
    capsys.readouterr()
    assert cli.main(["devices", "list", "--json"]) == 0
    listed = {row["device"]: row["state"] for row in json.loads(capsys.readouterr().out)}
    assert listed == {LAPTOP: "revoked since 2026-01-01T00:00:00+00:00", CLONE: "admitted"}
    assert cli.main(["devices", "close"]) == cli.main(["devices", "open"]) == 0


# what lies in the landing ---------------------------------------------------------------------------------------------


def test_what_was_overwritten_is_found(store: MemoryStore, connection: duckdb.DuckDBPyConnection) -> None:
    """A store that lets a device overwrite its objects cannot hide it: other bytes, no bytes, the same bytes again."""
    arrivals = [batch(store, {"llm_turns": [turn(n)]}, seq=n) for n in range(1, 6)]
    load.load(connection, store, arrivals)
    assert verify.verify(connection, store).findings == ()
    kept = dict(store.objects)
    changed, body = spoiled(store, 1)
    same_size, _ = spoiled(store, 2)
    store.objects[same_size] = bytes(reversed(kept[same_size]))
    missing, _ = spoiled(store, 3)
    del store.objects[missing]
    store.received[arrivals[3].key] += timedelta(hours=1)

    def found() -> dict[str, str]:
        return dict(connection.execute("SELECT object_key, finding FROM wire.object_findings").fetchall())

    done = verify.verify(connection, store, sample=0)
    assert found() == {changed: "changed", missing: "missing", arrivals[3].key: "written_again"}
    assert (done.objects, done.read) == (10, 2), "size and time are looked at without reading"
    assert verify.verify(connection, store).read == 9
    assert found() == {changed: "changed", same_size: "changed", missing: "missing", arrivals[3].key: "written_again"}
    first = connection.execute("SELECT * FROM wire.object_findings ORDER BY ALL").fetchall()
    verify.verify(connection, store)
    assert connection.execute("SELECT * FROM wire.object_findings ORDER BY ALL").fetchall() == first, "noticed once"
    store.objects[changed] = body
    verify.verify(connection, store)
    assert changed not in found()
