"""What is erased is in no byte any more, nothing else is touched, sums add up, and it does not come back.

Does not belong here: the whole job with its models (tests/end_to_end/test_erasure.py).
"""

import gzip
import hashlib
import io
import json
import re
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from copy import deepcopy
from dataclasses import asdict
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.torture import points
from pipelines import failpoints
from pipelines.contract.keys import parse_prefix, request_keys
from pipelines.contract.receipts import ErasureRequest, parse_receipt
from pipelines.errors import UsageError
from pipelines.store import StoreRefusedError
from pipelines.warehouse import (
    erase,
    kept,
    landing,
    load,
    needles,
    operator_actions,
    quarantine,
    renewal,
    residue,
    suppression,
)
from pipelines.warehouse.needles import Needles, UnsearchableError
from tests.warehouse_part import bombs
from tests.warehouse_part.batches import EPOCH, MemoryStore, batch, record, row, turn

NOW = datetime(2026, 5, 1, tzinfo=UTC)
WAREHOUSE = "apiary.duckdb"
DEVICE, OTHER, SHARED, GUEST = (hashlib.sha256(name.encode()).hexdigest()[:32] for name in "abcd")
RATED_LINES = """
    CREATE OR REPLACE TABLE marts.fct_rated_lines AS
    WITH turns AS (
        SELECT *, least(coalesce(cache_read_input_tokens, 0), input_tokens) AS read,
            least(coalesce(cache_write_input_tokens, 0), input_tokens - read) AS written
        FROM wire.llm_turns
    ),
    lines AS (
        SELECT *, unnest([
            {'component': 'input_uncached', 'quantity': input_tokens - read - written, 'cost': NULL},
            {'component': 'cache_read', 'quantity': read, 'cost': NULL},
            {'component': 'cache_write_unknown', 'quantity': written, 'cost': NULL},
            {'component': 'output', 'quantity': output_tokens, 'cost': reported_cost_usd}
        ], recursive := true)
        FROM turns
    )
    SELECT tenant_id, record_id, _user_id AS user_id, model, component, quantity, cost AS reported_cost_usd,
        cast(occurred_at AS DATE) AS usage_date
    FROM lines WHERE quantity > 0 OR component = 'output'
"""
TURNS = "CREATE OR REPLACE TABLE marts.fct_llm_turns AS SELECT tenant_id, _ingest_seq FROM wire.llm_turns"
# What counts now, and what is kept: by tenant, day, model and component, as neither a user nor a session is.
COUNTED = """
    SELECT tenant_id, usage_date, model, component, cast(quantity AS DECIMAL(38, 20)) AS quantity, 0 AS unreported
    FROM marts.fct_rated_lines
    UNION ALL
    SELECT tenant_id, usage_date, model, 'reported_cost', reported_cost_usd, cast(reported_cost_usd IS NULL AS BIGINT)
    FROM marts.fct_rated_lines WHERE component = 'output'
"""
KEPT = "SELECT tenant_id, usage_date, model, charge_class, quantity, unpriced_turns FROM wire.kept_charges"


def build(file: Path) -> None:
    """What erasing looks at of the models, made of the wire."""
    with duckdb.connect(str(file)) as connection:
        connection.execute("CREATE SCHEMA IF NOT EXISTS marts")
        connection.execute(RATED_LINES)
        connection.execute(TURNS)


def by(user: str) -> Any:
    return lambda manifest: manifest.update(user=user)


def session(number: object, user: str) -> dict[str, Any]:
    return row("sessions", number, session_id=record(f"session of {number}"), user_id=user)


@cache
def landed() -> MemoryStore:
    """Two tenants, four devices, one of them shared by two users."""
    store = MemoryStore()
    batch(store, {"llm_turns": [turn(1), turn(2), turn("copy")]}, device=DEVICE, change=by("ada-lovelace"))
    batch(
        store,
        {"llm_turns": [turn("copy"), turn(3)], "sessions": [session(3, "bob")]},
        device=OTHER,
        seq=1,
        change=by("bob"),
        minute=1,
    )
    batch(store, {"llm_turns": [turn(4)]}, device=DEVICE, seq=2, change=by("ada-lovelace"), minute=2)
    batch(store, {"llm_turns": [turn(5)]}, device=SHARED, seq=1, change=by("ada-lovelace"), minute=3)
    mixed = {"llm_turns": [turn(6), turn(5)], "sessions": [session(5, "ada-lovelace"), session(6, "bob")]}
    batch(store, mixed, device=SHARED, seq=2, change=by("bob"), minute=4)
    batch(store, {"llm_turns": [turn(7)]}, device=SHARED, seq=3, change=by("bob"), minute=5)
    batch(store, {"llm_turns": [turn(1), turn(8)]}, tenant="bolt", device=GUEST, change=by("eve"), minute=6)
    batch(store, {"llm_turns": b"no parquet"}, device=DEVICE, seq=3, change=by("ada-lovelace"), minute=7)
    return store


@cache
def loaded() -> bytes:
    """The file of a warehouse with what landed: to load it for each test takes longer than most of them."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / WAREHOUSE
        load_landed(file, landed())
        build(file)
        return file.read_bytes()


def load_landed(file: Path, store: MemoryStore) -> load.Loaded:
    """Load what a store holds and a warehouse does not."""
    with duckdb.connect(str(file)) as connection:
        load.prepare(connection)
        kept.restore(connection, store)
        arrivals = landing.pending(store, load.known_manifests(connection))
        return load.load(connection, store, arrivals, admission=suppression.load(store).refusal)


class Site:
    """A warehouse and a store of its own, with what landed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = deepcopy(landed())
        self.warehouse = root / "warehouse" / WAREHOUSE
        self.warehouse.parent.mkdir(parents=True)
        self.warehouse.write_bytes(loaded())
        self.oracle = self.landing()
        self.colony_keys: list[bytes] = []

    def load(self, path: Path | None = None) -> load.Loaded:
        return load_landed(path or self.warehouse, self.store)

    def landing(self) -> dict[str, bytes]:
        return {key: data for key, data in self.store.objects.items() if key.startswith("landing/")}

    def counted(self) -> list[tuple[Any, ...]]:
        """What was counted, whoever used it and whether it is erased since: tokens, reported cost, turns without one.

        Models that a person named count together: their names are not kept.
        """
        return self.query(
            "SELECT tenant_id, usage_date, if(starts_with(model, 'k1_'), 'unknown', model) AS named, component,"
            f" sum(quantity), sum(unreported) FROM ({COUNTED} UNION ALL {KEPT})"
            " GROUP BY ALL HAVING sum(quantity) <> 0 OR sum(unreported) <> 0 ORDER BY ALL"
        )

    def users(self, tenant: str) -> list[str]:
        """Who used what is rated."""
        found = self.query(f"SELECT DISTINCT user_id FROM marts.fct_rated_lines WHERE tenant_id = '{tenant}'")
        return sorted(user for (user,) in found)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(str(self.warehouse)) as connection:
            return connection.execute(sql).fetchall()

    def rows(self, where: str) -> int:
        """Rows of the wire, of both tables that there are."""
        counts = self.query(
            f"SELECT count(*) FROM wire.llm_turns WHERE {where} UNION ALL"
            f" SELECT count(*) FROM wire.sessions WHERE {where}"
        )
        return sum(count for (count,) in counts)

    def suppress(self, scope: suppression.Scope, subject: str, tenant: str = "acme") -> suppression.Suppression:
        found = erase.find(self.warehouse, self.store, scope=scope, tenant=tenant, subject=subject).get(tenant)
        assert found
        return suppression.record(
            self.store, scope=scope, tenant=tenant, subject=subject, actor="an operator", reason="asked for",
            batches=found.mixed, shared=found.shared,
        )  # fmt: skip

    def erase(
        self, signed: Iterable[str] = (), models: Iterable[str] = (), book: Path = Path("/nowhere")
    ) -> list[erase.Erased]:
        work = erase.Pass(self.warehouse, self.store)
        if work.rewrite(build, now=NOW):
            self.colony_keys.append(work.colony_key)
        whole = {line.tenant for line in work.lines if line.scope == "tenant"}
        operator_actions.redact(book, tenants=whole, erased=work.journal.identifiers)
        work.clear_landing()
        work.clear_copies()
        done = work.prove([self.root], passing_over=[], signed=signed, models={*models}, now=NOW)
        self.failed = work.failed
        return done

    def wire_hash(self, path: Path | None = None) -> str:
        with duckdb.connect(str(path or self.warehouse)) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            return load.wire_hash(connection)

    def hash_without(self, *gone: str) -> str:
        """The truth: what a warehouse holds that never heard of the devices or manifests."""
        other = MemoryStore()
        for key, data in self.oracle.items():
            prefix = parse_prefix(key)
            if not any(name in key for name in gone) and prefix:
                other.objects[key], other.received[key] = data, self.store.received[key]
        with duckdb.connect() as connection:
            load.prepare(connection)
            load.load(connection, other, landing.pending(other, ()))
            return load.wire_hash(connection)

    def holds(self, *texts: str) -> list[str]:
        """Files and objects that hold a text, opened by other means than the code's own."""
        found = [key for key, data in self.store.objects.items() if any(t.encode() in data or t in key for t in texts)]
        for path in (path for path in self.root.rglob("*") if path.is_file()):
            content = path.read_bytes()
            if path.suffix == ".duckdb":
                with duckdb.connect(str(path)) as connection:
                    tables = connection.execute("SELECT schema_name, table_name FROM duckdb_tables()").fetchall()
                    for schema, table in tables:
                        content += str(connection.execute(f"FROM {schema}.{table}").fetchall()).encode()
            found += [path.name] if any(text.encode() in content for text in texts) else []
        return [name for name in found if not name.startswith("receipts/")]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.mark.parametrize("is_in_landing", [True, False])
def test_who_ever_sent_something_is_known_by_the_ledger_or_the_store(site: Site, is_in_landing: bool) -> None:
    """The ledger outlives a landing that retention has emptied; what waits in the landing is in no ledger."""
    warehouse = site.root / "none.duckdb" if is_in_landing else site.warehouse
    if not is_in_landing:
        site.store.objects.clear()
    assert erase.known(warehouse, site.store, scope="tenant") == {"acme", "bolt"}
    assert erase.known(warehouse, site.store, scope="user", tenant="acme") == {"ada-lovelace", "bob"}
    assert erase.known(warehouse, site.store, scope="device", tenant="bolt") == {GUEST}


def test_a_device_goes_and_nothing_else(site: Site) -> None:
    counted = site.counted()
    rows = site.rows(f"_device_id = '{DEVICE}'")
    line = site.suppress("device", DEVICE)
    (done,) = site.erase()
    assert (done.request_id, done.rows, done.objects) == (line.request_id, rows, 6)
    assert site.wire_hash() == site.hash_without(DEVICE)
    assert site.holds(DEVICE) == []
    assert site.holds(record("llm_turns 2"), record("session of 2")) == []
    assert site.holds(record("session of 1")), "bolt has a session of the same name"
    build(site.warehouse)
    assert site.counted() == counted, "what was counted of a tenant and a day stays"
    assert site.users("acme") == ["ada-lovelace", "bob"]
    assert site.query("SELECT DISTINCT tenant_id FROM wire.kept_charges") == [("acme",)]
    (receipt,) = [key for key in site.store.objects if key.startswith("receipts/")]
    told = parse_receipt(receipt, site.store.get(receipt), region="eu", tenant="acme")
    assert (told.request_id, told.device, told.epochs) == (line.request_id, DEVICE, (EPOCH,))
    assert (told.rows_deleted, told.objects_deleted, told.erased_at) == (rows, 6, NOW)
    assert site.erase() == [], "there is nothing left to do"


def test_a_table_that_another_release_made_stops_no_erasure(site: Site) -> None:
    """Nor is it carried over: nobody knows which of its rows name whom."""
    site.query(f"CREATE TABLE wire.of_another_release AS SELECT 1 AS number, '{DEVICE}' AS name")
    line = site.suppress("device", DEVICE)
    assert [done.request_id for done in site.erase()] == [line.request_id]
    assert site.holds(DEVICE) == []


@pytest.mark.parametrize(
    ("device", "tenant", "named", "gone"),
    [
        (GUEST, "bolt", None, ["eve"]),
        (GUEST, "bolt", "seats (user_id) VALUES ('eve')", []),
        (GUEST, "bolt", "budgets (scope, scope_id) VALUES ('user', 'eve')", []),
        (GUEST, "bolt", "budgets (scope, scope_id) VALUES ('colony', 'eve')", ["eve"]),
        (DEVICE, "acme", None, []),
    ],
    ids=["no device is left", "a seat is hers", "a budget is hers", "a colony has her name", "another device is left"],
)
def test_whose_last_device_goes_goes_by_name(
    site: Site, device: str, tenant: str, named: str | None, gone: list[str]
) -> None:
    with duckdb.connect(str(site.warehouse)) as connection:
        connection.execute("CREATE SCHEMA billing")
        connection.execute("CREATE TABLE billing.seats AS SELECT 'somebody' AS user_id")
        connection.execute("CREATE TABLE billing.budgets (scope VARCHAR, scope_id VARCHAR)")
        if named:
            connection.execute(f"INSERT INTO billing.{named}")
    site.suppress("device", device, tenant)
    work = erase.Pass(site.warehouse, site.store)
    assert work.rewrite(build, now=NOW)
    assert work.journal.names == set(gone)


def test_a_name_that_means_something_else_too_is_told_apart(site: Site) -> None:
    """A word of the program, of a book, a value of somebody else's rows; `zz-top` is a name and nothing else."""
    names = ["anthropic", "acct-acme", "o9", "zz-top"]
    for number, user in enumerate(names):
        rows = {"llm_turns": [turn(20 + number)]}
        batch(site.store, rows, tenant="bolt", device=f"{number}" * 32, change=by(user), minute=50 + number)
    site.load()
    for user in names:
        site.suppress("user", user, "bolt")
    work = erase.Pass(site.warehouse, site.store)
    assert work.rewrite(build, now=NOW)
    assert work.journal.names >= set(names)
    site.query("UPDATE wire.llm_turns SET agent_role = 'o9' WHERE tenant_id = 'acme'")
    assert work.common_names(["billing_account_id is acct-acme"]) == {"anthropic", "acct-acme", "o9"}


def test_a_name_that_a_book_had_goes_when_the_book_has_it_no_more(site: Site) -> None:
    """A book that was read again leaves its old rows in free blocks of the file."""
    with duckdb.connect(str(site.warehouse)) as connection:
        connection.execute("CREATE SCHEMA billing")
        connection.execute("CREATE TABLE billing.seats AS SELECT 'ada-lovelace' AS user_id FROM range(2000)")
    line = site.suppress("user", "ada-lovelace")
    assert site.erase() == []
    assert "apiary.duckdb" in site.failed[line.request_id]
    written = site.warehouse.stat().st_ino
    assert site.erase() == [], "the book has it still"
    assert site.warehouse.stat().st_ino == written, "and nothing is written anew for it"
    site.query("CREATE OR REPLACE TABLE billing.seats AS SELECT 'grace' AS user_id")
    assert [done.request_id for done in site.erase()] == [line.request_id]
    assert site.holds("ada-lovelace") == []


def test_a_new_file_that_holds_what_the_old_one_held_is_written_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a block of it does now and then, behind what was written into it."""
    line, copies = site.suppress("user", "ada-lovelace"), []
    search, copy = residue.found_in_file, erase.Pass._copy

    def found(needles: Needles, path: Path) -> set[str]:
        is_first = path.parent.name == "erasing" and len(copies) == 1
        return search(needles, path) | ({"ada-lovelace"} if is_first else set())

    def copied(work: erase.Pass, fresh: Path, gone: set[str]) -> set[str]:
        copies.append(fresh)
        return copy(work, fresh, gone)

    monkeypatch.setattr(residue, "found_in_file", found)
    monkeypatch.setattr(erase.Pass, "_copy", copied)
    assert [done.request_id for done in site.erase()] == [line.request_id]
    assert len(copies) == 2
    assert site.holds("ada-lovelace") == []


def test_lines_of_closed_months_are_not_copied(site: Site) -> None:
    """They are read again from their redacted files: once dropped, they would stay in free blocks."""
    with duckdb.connect(str(site.warehouse)) as connection:
        connection.execute("CREATE SCHEMA billing")
        for table in ("closed_lines", "seats"):
            connection.execute(f"CREATE TABLE billing.{table} AS SELECT '{DEVICE}' AS user_id")
    site.suppress("device", DEVICE)
    assert erase.Pass(site.warehouse, site.store).rewrite(build, now=NOW)
    assert site.query("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'billing'") == [("seats",)]


def test_of_two_copies_the_other_ones_stays(site: Site) -> None:
    owner = "SELECT _device_id FROM wire.llm_turns WHERE record_id = ?".replace("?", f"'{record('llm_turns copy')}'")
    assert site.query(owner) == [(min(DEVICE, OTHER),)]
    site.suppress("device", min(DEVICE, OTHER))
    site.erase()
    assert site.query(owner) == [(max(DEVICE, OTHER),)]


def test_a_user_goes_with_the_batches_that_name_her(site: Site) -> None:
    """From her own device and from the one she shared; the others' batches there stay, and their chain has no gap."""
    counted = site.counted()
    rows = site.rows(
        f"tenant_id = 'acme' AND (_user_id = 'ada-lovelace' OR _manifest_key LIKE '%{SHARED}%/m/0000000002%')"
    )
    site.suppress("user", "ada-lovelace")
    (done,) = site.erase()
    assert done.rows == rows
    mixed = [key for key, data in site.oracle.items() if "/m/" in key and SHARED in key and b'"seq": 2' in data]
    objects = [item["key"] for item in json.loads(site.oracle[mixed[0]])["objects"]]
    first = next(key for key in site.oracle if SHARED in key and "/d/0000000001" in key)
    first_manifest = next(key for key in site.oracle if SHARED in key and "/m/0000000001" in key)
    assert site.wire_hash() == site.hash_without(DEVICE, *mixed, *objects, first, first_manifest)
    assert site.holds("ada-lovelace", DEVICE, record("session of 5"), record("session of 2")) == []
    assert site.query(f"SELECT seq, status FROM wire.batches WHERE device_id = '{SHARED}' ORDER BY seq") == [
        (1, "suppressed"), (2, "suppressed"), (3, "loaded")
    ]  # fmt: skip
    build(site.warehouse)
    assert site.counted() == counted


@pytest.mark.parametrize("scope", ["user", "tenant"])
def test_what_was_decided_about_agents_stops_no_erasure(site: Site, scope: suppression.Scope) -> None:
    """The book of the site names a session of hers; it gets its own lines back, without it."""
    book = site.root / "operator" / "actions.jsonl"
    gone = record("session of 5")
    for tenant, session_id in (("acme", gone), ("acme", None), ("bolt", None)):
        operator_actions.record(
            book, action="note", tenant=tenant, agent="queen:queen_growth", reason="dumb", actor="grace",
            session=session_id,
        )  # fmt: skip
    with duckdb.connect(str(site.warehouse)) as connection:
        operator_actions.load(connection, book)
    line = site.suppress(scope, "ada-lovelace" if scope == "user" else "acme")
    assert [done.request_id for done in site.erase(book=book)] == [line.request_id]
    assert site.holds(gone) == []
    with duckdb.connect(str(site.warehouse)) as connection:
        operator_actions.load(connection, book)
    assert site.query("SELECT tenant_id, session_id FROM wire.operator_actions ORDER BY ALL") == (
        [("acme", None), ("acme", None), ("bolt", None)] if scope == "user" else [("bolt", None)]
    )


def test_a_tenant_goes_and_its_amounts_stay(site: Site) -> None:
    counted, rows = site.counted(), site.rows("tenant_id = 'acme'")
    site.suppress("tenant", "acme")
    (done,) = site.erase()
    assert done.rows == rows
    assert site.wire_hash() == site.hash_without("/acme/")
    assert site.holds(DEVICE, OTHER, SHARED, "ada-lovelace", record("session of 3")) == []
    build(site.warehouse)
    assert site.counted() == counted
    assert site.users("acme") == [], "what is counted of it is kept sums alone"


def test_a_late_batch_and_a_rebuild_bring_nothing_back(site: Site, tmp_path: Path) -> None:
    """Test 72: a device that was shut while it was erased delivers; then the warehouse is made from the landing."""
    old = site.landing()
    site.suppress("device", DEVICE)
    site.erase()
    before = site.wire_hash()
    late = batch(site.store, {"llm_turns": [turn("late")]}, device=DEVICE, seq=9, change=by("ada-lovelace"), minute=99)
    again = next(key for key in old if "/m/0000000001" in key and DEVICE in key)
    for key in (key for key in old if DEVICE in key and "0000000001" in key):
        site.store.put(key, old[key])  # the same batch once more, from a copy of the landing
    found = site.load()
    assert (found.received, found.suppressed, found.loaded) == (1, 1, 0), "of the other it knew"
    assert site.load().received == 0, "the ledger knows them, though not by name"
    assert site.wire_hash() == before
    assert {late.key, again} <= set(site.store.objects)
    assert site.erase() == []
    assert site.holds(DEVICE, record("llm_turns late")) == [], "they are swept"

    for key in old:
        site.store.put(key, old[key])
    rebuilt = tmp_path / "rebuilt" / "apiary.duckdb"
    rebuilt.parent.mkdir()
    site.load(rebuilt)
    assert site.wire_hash(rebuilt) == before
    with duckdb.connect(str(rebuilt)) as connection:
        assert connection.execute("SELECT count(*) FROM wire.kept_charges").fetchone() != (0,)
        names = {r for (r,) in connection.execute("SELECT manifest_key FROM wire.batches").fetchall()}
    assert not [name for name in names if DEVICE in name]


class Killed(BaseException):
    pass


@pytest.mark.services
def test_killed_anywhere_it_goes_on(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """And at each moment either the old warehouse is whole or the new one is."""
    rows = site.rows(f"_device_id = '{DEVICE}'")
    counted, hashes = site.counted(), (site.wire_hash(), site.hash_without(DEVICE))
    site.suppress("device", DEVICE)
    left = [*points.ERASE[:-1], "erase.deleted", points.ERASE[-1]]

    def die(name: str) -> None:
        if left and name == left[0]:
            left.pop(0)
            raise Killed

    monkeypatch.setattr(failpoints, "hook", die)
    while left:
        with pytest.raises(Killed):
            site.erase()
        assert site.wire_hash() in hashes
        assert site.wire_hash() == hashes[1] or [key for key in site.landing() if DEVICE in key]
    done = site.erase()
    monkeypatch.setattr(failpoints, "hook", None)
    assert [erased.rows for erased in done] == [rows]
    receipts = [key for key in site.store.objects if key.startswith(("receipts/", suppression.DONE))]
    assert len(receipts) == 2, "one for the device, one for the list, however often it was tried"
    told = parse_receipt(receipts[0], site.store.get(receipts[0]), region="eu", tenant="acme")
    assert (told.rows_deleted, told.objects_deleted) == (rows, 6)
    assert site.wire_hash() == hashes[1]
    assert site.holds(DEVICE) == []
    build(site.warehouse)
    assert site.counted() == counted


@pytest.mark.parametrize("place", ["requests/v1/", "x1/"], ids=["of this release", "of release 0.1.0"])
def test_an_owners_request_is_taken_up_and_answered(site: Site, place: str) -> None:
    asked = ErasureRequest(
        request_id="1b" * 16, region="eu", tenant="acme", device=DEVICE, epochs=(EPOCH,), user="ada-lovelace",
        consent_id="4e" * 16, seq=1, requested_at=NOW,
    )  # fmt: skip
    (key,) = (key for key in request_keys(asked.key()) if key.startswith(place))
    site.store.put(key, asked.to_json())
    forged = key.replace("acme", "bolt")
    site.store.put(forged, asked.to_json())
    found = suppression.record_requests(site.store)
    assert (list(found.asked), found.unreadable) == ([key], (forged,))
    suppression.record_requests(site.store)
    assert [line.request_id for line in suppression.load(site.store).listed] == [asked.request_id], "once"
    (done,) = site.erase()
    (receipt,) = [key for key in site.store.objects if key.startswith("receipts/")]
    assert parse_receipt(receipt, site.store.get(receipt), region="eu", tenant="acme").request_id == done.request_id
    assert key not in site.store.objects, "it names the user and the device"
    # A new grant is a new epoch: what it covers is not what was to be forgotten.
    listed = suppression.load(site.store).listed[0]
    assert listed.covers(tenant="acme", device=DEVICE, epoch=EPOCH, user=None)
    assert not listed.covers(tenant="acme", device=DEVICE, epoch="f" * 16, user=None)


def test_the_list_names_nobody(site: Site) -> None:
    site.suppress("user", "ada-lovelace")
    site.suppress("device", DEVICE)
    text = b"".join(data for key, data in site.store.objects.items() if key.startswith(suppression.ROOT))
    assert b"ada-lovelace" not in text
    assert DEVICE.encode() not in text
    assert b"an operator" in text


@pytest.mark.parametrize(
    ("scope", "subject", "said"),
    [
        ("user", "eve", {"actor": "eve", "reason": "asked for"}),
        ("user", "eve", {"actor": "an operator", "reason": "eve asked for it"}),
        ("device", GUEST, {"actor": "an operator", "reason": f"{GUEST} is lost"}),
    ],
)
def test_a_line_that_would_name_its_subject_is_refused(scope: Any, subject: str, said: dict[str, str]) -> None:
    store = MemoryStore()
    with pytest.raises(UsageError, match="kept for ever"):
        suppression.record(store, scope=scope, tenant="bolt", subject=subject, **said)
    assert store.objects == {}
    suppression.record(store, scope="user", tenant="bolt", subject="eve", actor="evelyn", reason="asked for")


def test_a_name_that_the_list_says_of_somebody_is_told_and_stops_nothing(site: Site) -> None:
    """A user who is called like a word of a line, as `make run` calls a real home's: it must not be removed."""
    batch(site.store, {"llm_turns": [turn(12)]}, device="2" * 32, change=by("owner"), minute=21)
    site.load()
    build(site.warehouse)
    line = suppression.record(
        site.store, scope="device", tenant="acme", subject="2" * 32, actor="the device's owner", reason="withdrawn"
    )
    (done,) = site.erase()
    assert (done.request_id, done.findings["signer"]) == (line.request_id, 1)


def test_a_line_is_of_one_tenant_and_one_subject() -> None:
    """What two tenants or two lines have in common tells neither of them, nor that it is the same person."""
    store = MemoryStore()
    told: dict[str, Any] = {"actor": "an operator", "reason": "asked for"}
    lines = [
        suppression.record(store, scope="user", tenant="acme", subject="ada", **told),
        suppression.record(store, scope="user", tenant="acme", subject="ada", **told),
        suppression.record(store, scope="device", tenant="acme", subject=DEVICE, **told),
        suppression.record(store, scope="tenant", tenant="acme", subject="acme", **told),
    ]
    assert lines[0].subject != lines[1].subject
    assert len({line.salt for line in lines}) == len(lines)

    def covered(tenant: str, device: str, user: str) -> list[bool]:
        return [line.covers(tenant=tenant, device=device, epoch=EPOCH, user=user) for line in lines]

    assert covered("acme", DEVICE, "ada") == [True, True, True, True]
    assert covered("acme", OTHER, "bob") == [False, False, False, True]
    assert covered("bolt", DEVICE, "ada") == [False, False, False, False]


@pytest.mark.parametrize("field", ["actor", "reason"])
@pytest.mark.parametrize("text", ["", " ", "two\nlines", "x" * 201])
def test_a_line_of_the_list_says_who_and_why(field: str, text: str) -> None:
    told = {"actor": "an operator", "reason": "asked for"} | {field: text}
    with pytest.raises(UsageError, match=field):
        suppression.record(MemoryStore(), scope="tenant", tenant="acme", subject="acme", **told)


def test_others_that_todays_rules_refuse_keep_their_rows(site: Site) -> None:
    """What was loaded once stays loaded: a damaged object or a new rule of the gate must not stop an erasure."""
    objects = dict(site.store.objects)
    (kept_rows,) = site.query(f"SELECT count(*) FROM wire.llm_turns WHERE _device_id = '{OTHER}'")
    site.suppress("device", DEVICE)
    victim = next(key for key in site.store.objects if OTHER in key and "/d/" in key)
    good = site.store.objects[victim]
    site.store.objects[victim] = b"torn" + good[4:]
    assert len(site.erase()) == 1
    assert site.query(f"SELECT count(*) FROM wire.llm_turns WHERE _device_id = '{OTHER}'") == [kept_rows]
    assert site.query(f"SELECT DISTINCT status FROM wire.batches WHERE device_id = '{OTHER}'") == [("loaded",)]
    assert set(objects) - set(site.store.objects) == {key for key in objects if DEVICE in key}


def test_what_is_not_in_the_landing_any_more_is_copied(site: Site) -> None:
    """By choice a landing may be kept for a while only; the others' rows of it are then in the warehouse alone."""
    for key in [key for key in site.store.objects if OTHER in key]:
        site.store.delete(key)
    site.suppress("device", DEVICE)
    site.erase()
    kept_rows = site.query(f"SELECT count(*) FROM wire.llm_turns WHERE _device_id = '{OTHER}'")
    assert kept_rows == [(2 if min(DEVICE, OTHER) == OTHER else 1,)]
    assert site.holds(DEVICE) == []


def newer(user: str) -> Any:
    """A manifest of a release that is to come."""

    def change(manifest: dict[str, Any]) -> None:
        manifest["user"] = user
        manifest["objects"][0]["schema"] = "llm_turns/99"

    return change


@pytest.mark.parametrize(("scope", "subject"), [("user", "ada-lovelace"), ("device", DEVICE), ("tenant", "acme")])
def test_a_batch_that_this_release_cannot_read_goes_with_its_owner(
    site: Site, scope: suppression.Scope, subject: str
) -> None:
    """One that came before the erasure, and one that comes after it."""
    hers: dict[str, Any] = {"change": newer("ada-lovelace"), "device": DEVICE}
    before = batch(site.store, {"llm_turns": [turn("b")]}, seq=8, minute=40, **hers)
    others = batch(site.store, {"llm_turns": [turn("o")]}, tenant="bolt", device="7" * 32, change=newer("eve"))
    site.load()
    assert site.query(f"SELECT reason FROM wire.batches WHERE manifest_key = '{before.key}'") == [("unknown_schema",)]
    line = site.suppress(scope, subject)
    assert [done.request_id for done in site.erase()] == [line.request_id]
    late = batch(site.store, {"llm_turns": [turn("l")]}, seq=9, minute=50, **hers)
    assert site.load().suppressed == 1
    erase.Pass(site.warehouse, site.store, only=()).clear_landing()
    assert {before.key, late.key}.isdisjoint(site.store.objects)
    numbers = ("/d/0000000008-", "/d/0000000009-")
    assert not [key for key in site.store.objects if DEVICE in key and any(number in key for number in numbers)]
    assert site.holds(DEVICE if scope == "device" else "ada-lovelace") == []
    assert others.key in site.store.objects
    told = "SELECT count(*) FROM wire.batches WHERE status = 'quarantined' AND tenant_id = "
    assert site.query(f"{told} 'acme'") == [(0,)]
    assert site.query(f"{told} 'bolt'") == [(1,)]


@pytest.mark.parametrize(("scope", "subject"), [("user", "ada-lovelace"), ("device", DEVICE)])
def test_a_refused_batch_that_an_earlier_release_left_goes_too(
    site: Site, scope: suppression.Scope, subject: str
) -> None:
    """Its request is receipted; the ledger still names its owner, and the landing has it."""
    left = batch(site.store, {"llm_turns": [turn("b")]}, seq=8, change=newer("ada-lovelace"), device=DEVICE, minute=40)
    site.load()
    line = site.suppress(scope, subject)
    site.store.put(f"{suppression.DONE}{line.request_id}.json", b"{}")
    admission = suppression.load(site.store).refusal
    with duckdb.connect(str(site.warehouse)) as connection:
        again = quarantine.replay_what_may_pass(connection, site.store, admission=admission)
    assert (again.received, again.suppressed) == (2, 2), "one of hers was refused before as well"
    erase.Pass(site.warehouse, site.store, only=()).clear_landing()
    assert left.key not in site.store.objects
    assert site.query(f"SELECT count(*) FROM wire.batches WHERE manifest_key = '{left.key}'") == [(0,)]
    assert site.query(f"SELECT count(*) FROM wire.batch_objects WHERE manifest_key = '{left.key}'") == [(0,)]
    assert site.query("SELECT count(*) FROM wire.batches WHERE status = 'suppressed'") == [(2,)]


def test_an_object_that_the_store_does_not_let_go_stops_no_other(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left of somebody who was erased before stops nobody; one's own stops one's own request."""
    site.suppress("user", "eve", "bolt")
    site.erase()
    rows = {"llm_turns": [turn("l")]}
    late = batch(site.store, rows, tenant="bolt", device=GUEST, seq=9, change=by("eve"), minute=50)
    assert site.load().suppressed == 1
    delete = site.store.delete

    def refuse(key: str) -> None:
        if refused in key:
            raise StoreRefusedError("403")
        delete(key)

    monkeypatch.setattr(site.store, "delete", refuse)
    refused = late.key
    line = site.suppress("device", DEVICE)
    assert [done.request_id for done in site.erase()] == [line.request_id]
    assert late.key in site.store.objects
    refused = OTHER
    site.suppress("device", OTHER)
    work = erase.Pass(site.warehouse, site.store)
    work.rewrite(build, now=NOW)
    with pytest.raises(StoreRefusedError):
        work.clear_landing()


# what stops nobody else -----------------------------------------------------------------------------------------------


def plant(site: Site, key: str, data: bytes = b"x") -> str:
    site.store.put(key, data)
    return key


def test_probes_and_foreign_objects_of_a_device_go_with_it(site: Site) -> None:
    """The probe of a grant names the device in its key; nothing under a device's place is trusted."""
    place = f"landing/v1/eu/acme/{DEVICE}"
    planted_keys = [
        plant(site, f"probe/v1/acme/{DEVICE}/{'1' * 16}", b"first"),
        plant(site, f"probe/v1/acme/{DEVICE}/{'2' * 16}-checksum", b"fourth"),
        plant(site, f"{place}/{EPOCH}/d/x.gz", b"\x1f"),
        plant(site, f"{place}/{EPOCH}/anything at all"),
        plant(site, f"{place}/no-epoch"),
    ]
    other = plant(site, f"probe/v1/acme/{OTHER}/{'1' * 16}", b"first")
    site.suppress("device", DEVICE)
    (done,) = site.erase()
    assert done.objects == 6 + len(planted_keys)
    assert done.findings == {}
    assert set(planted_keys).isdisjoint(site.store.objects)
    assert other in site.store.objects
    assert site.holds(DEVICE) == []


def test_a_device_that_was_granted_anew_does_not_stop_its_erasure(site: Site) -> None:
    """Its id stands in new keys by right: of another epoch, and of the new grant's probe."""
    asked = ErasureRequest(
        request_id="1b" * 16, region="eu", tenant="acme", device=DEVICE, epochs=(EPOCH,), user="ada-lovelace",
        consent_id="4e" * 16, seq=1, requested_at=NOW,
    )  # fmt: skip
    site.store.put(asked.key(), asked.to_json())
    suppression.record_requests(site.store)
    again = plant(site, f"landing/v1/eu/acme/{DEVICE}/{'f' * 16}/d/{1:010}-llm_turns-{'a' * 16}.parquet")
    (done,) = site.erase()
    assert done.request_id == asked.request_id
    assert again in site.store.objects


BOMBS = {
    "one byte": b"\x1f",
    "gzip": gzip.compress(bytes(4 << 20), 9) * 80,
    "no Parquet": b"PAR1 and no more PAR1",
    "bomb in Parquet": bombs.page_that_claims(),
}


@pytest.mark.parametrize("name", BOMBS)
def test_what_another_device_wrote_stops_no_erasure(site: Site, name: str) -> None:
    """It is opened in the sandbox; what cannot be searched is counted in the receipt with its reason."""
    place = f"landing/v1/eu/acme/{OTHER}/{EPOCH}"
    for number in range(5):
        plant(site, f"{place}/d/{number:010}-llm_turns-{'0' * 16}.parquet", BOMBS[name])
    plant(site, f"{place}/d/x.gz", b"\x1f")
    site.suppress("device", DEVICE)
    (done,) = site.erase()
    reasons = {kind: count for kind, count in done.findings.items() if kind.startswith("unsearchable_")}
    assert sum(reasons.values()) >= 5, "each of them is told"
    assert reasons["unsearchable_not_opened"] >= 2, "after three of a device nobody opens another one"
    assert done.findings["outside_contract"] == 1
    (key,) = [key for key in site.store.objects if key.startswith("receipts/")]
    assert parse_receipt(key, site.store.get(key), region="eu", tenant="acme").findings == done.findings


@pytest.mark.parametrize("scope", ["device", "user"])
def test_an_object_of_another_device_that_names_the_session_is_told(site: Site, scope: suppression.Scope) -> None:
    """An orphan and a quarantined batch of somebody else: erasure takes what is theirs, and says that more is there."""
    theirs = record("session of 2")
    sink = io.BytesIO()
    pq.write_table(pa.table({"session_id": pa.array([theirs]).dictionary_encode()}), sink, compression="zstd")
    orphan = plant(site, f"landing/v1/eu/acme/{OTHER}/{EPOCH}/d/{7:010}-sessions-{'0' * 16}.parquet", sink.getvalue())
    refused = batch(site.store, {"llm_turns": sink.getvalue()}, device=OTHER, seq=8, change=by("bob"), minute=9)
    site.load()
    site.suppress(scope, DEVICE if scope == "device" else "ada-lovelace")
    (done,) = site.erase()
    assert done.findings == {"others": 2}
    assert {orphan, refused.key} <= set(site.store.objects)


def test_one_that_cannot_be_finished_stops_no_other(site: Site) -> None:
    (site.root / "notes.txt").write_text(f"remember {record('session of 8')}")
    stuck, done_one = site.suppress("device", GUEST, "bolt"), site.suppress("device", DEVICE)
    assert [item.request_id for item in site.erase()] == [done_one.request_id]
    assert list(site.failed) == [stuck.request_id]
    assert "notes.txt" in site.failed[stuck.request_id]
    assert site.holds(DEVICE) == []
    third = site.suppress("user", "bob")
    assert [item.request_id for item in site.erase()] == [third.request_id], "nor one that is asked for later"
    (site.root / "notes.txt").unlink()
    assert [item.request_id for item in site.erase()] == [stuck.request_id]
    assert len([key for key in site.store.objects if key.startswith(suppression.DONE)]) == 3
    assert not erase.folder_of(site.warehouse).exists()
    assert len(site.colony_keys) > 1
    assert len(set(site.colony_keys)) == 1, "erased colonies are told apart by one key until nothing waits"


def test_a_name_that_is_a_word_of_the_program_is_told_and_stops_nothing(site: Site) -> None:
    batch(site.store, {"llm_turns": [turn(11)]}, device="1" * 32, change=by("models"), minute=20)
    site.load()
    build(site.warehouse)
    (site.root / "dagster.log").write_text("built the models of today")
    kinds = pa.table({"kind": ["models"]}, metadata={"description": "what models say"})
    pq.write_table(kinds, site.root / "kinds.parquet")
    with duckdb.connect(str(site.root / "kinds.duckdb")) as connection:
        connection.execute("CREATE TABLE models AS SELECT 'models' AS kind")
        connection.execute("COMMENT ON TABLE models IS 'what models say'")
    (site.root / "kinds.csv").write_text("kind\nmodels\n")
    (site.root / "kinds.json").write_text('{"kind": "models"}')
    line = site.suppress("user", "models")
    (done,) = site.erase()
    assert done.request_id == line.request_id
    assert done.findings["unsearchable_common_name"] == 5


def test_a_table_that_cannot_be_read_stops_no_erasure(site: Site) -> None:
    batch(site.store, {"llm_turns": [turn(11)]}, device="1" * 32, change=by("models"), minute=20)
    site.load()
    build(site.warehouse)
    (site.root / "notes.csv").write_text(f"text\nmodels {'x' * 200_000}\n")
    site.suppress("user", "models")
    (done,) = site.erase()
    assert done.findings["unsearchable_no_csv"] == 1
    (site.root / "more.csv").write_text(f"text\nmodels {'x' * 200_000} {DEVICE}\n")
    line = site.suppress("device", DEVICE)
    assert site.erase() == []
    assert "more.csv" in site.failed[line.request_id], "an identifier is found all the same"


def test_such_a_name_is_found_where_a_table_names_users(site: Site) -> None:
    batch(site.store, {"llm_turns": [turn(11)]}, device="1" * 32, change=by("models"), minute=20)
    site.load()
    build(site.warehouse)
    pq.write_table(pa.table({"_user_id": ["bob", "models"], "kind": ["a", "b"]}), site.root / "a.parquet")
    pq.write_table(pa.table({"user_ids": [["ada"], ["models", None]]}), site.root / "b.parquet")
    with duckdb.connect(str(site.root / "c.duckdb")) as connection:
        connection.execute("CREATE TABLE found AS SELECT 'models' AS user_id")
    (site.root / "d.csv").write_text("x_UserId,kind\nmodels,a\n")
    line = site.suppress("user", "models")
    for name in ("a.parquet", "b.parquet", "c.duckdb", "d.csv"):
        assert site.erase() == []
        assert name in site.failed[line.request_id]
        (site.root / name).unlink()
    assert [item.request_id for item in site.erase()] == [line.request_id]


def test_who_signed_a_book_is_named_there_still(site: Site) -> None:
    """No device sent that name; identifiers are looked for as before, and so are names that nobody signed with."""
    book = "2026-03,late,its price is being agreed,ada-lovelace"
    (site.root / "settlements.csv").write_text(book)
    (site.root / "notes.csv").write_text("user_id\neve\n")
    signer, other = site.suppress("user", "ada-lovelace"), site.suppress("user", "eve", "bolt")
    (done,) = site.erase(signed=[book, "eve-2", "evelyn"])
    assert (done.request_id, done.findings["signer"]) == (signer.request_id, 1)
    assert "notes.csv" in site.failed[other.request_id]
    (site.root / "notes.csv").write_text(f"user_id\neve, as {record('session of 8')} says\n")
    assert site.erase(signed=["eve"]) == [], "what she signed with is no reason to keep a session's id"
    (site.root / "notes.csv").write_text("user_id\neve\n")
    assert [item.request_id for item in site.erase(signed=["eve"])] == [other.request_id]


def test_a_private_model_that_has_a_price_keeps_its_name(site: Site) -> None:
    """Its keyed hash goes with its only user, and stays where finance wrote it."""
    private = f"k1_{'7' * 32}"
    batch(site.store, {"llm_turns": [turn(13) | {"model": private}]}, device="3" * 32, change=by("alan"), minute=22)
    site.load()
    build(site.warehouse)
    (site.root / "price_book.csv").write_text(f"model,unit_price\n{private},1\n")
    site.suppress("device", "3" * 32)
    assert site.erase() == []
    (done,) = site.erase(models=[private])
    assert done.findings["model_in_books"] == 1


def test_the_landing_of_a_waiting_request_stays_until_its_own_pass(site: Site) -> None:
    """Its warehouse is not rewritten yet, and its receipt counts the objects."""
    waiting = {key for key in site.landing() if OTHER in key}
    site.suppress("device", OTHER)
    line = site.suppress("device", DEVICE)
    work = erase.Pass(site.warehouse, site.store, only={line.request_id})
    work.rewrite(build, now=NOW)
    work.clear_landing()
    assert [key for key in site.landing() if DEVICE in key] == []
    erase.Pass(site.warehouse, site.store, only=()).clear_landing()
    assert waiting
    assert waiting <= site.landing().keys()
    assert sum(done.objects for done in site.erase()) >= len(waiting)
    assert [key for key in site.landing() if OTHER in key] == []


def test_amounts_are_kept_where_the_models_do_not_build(site: Site) -> None:
    """Turn by turn, from what was rated; of a turn that another device holds too nothing is kept twice."""
    amounts = """
        SELECT sum(input_tokens), sum(output_tokens), count(*) FILTER (WHERE reported_cost_usd IS NULL),
            coalesce(sum(reported_cost_usd), 0)
        FROM wire.llm_turns
    """
    (before,) = site.query(amounts)

    def fails(_file: Path) -> None:
        raise erase.BuildError("a model is broken")

    site.suppress("device", DEVICE)
    work = erase.Pass(site.warehouse, site.store)
    work.rewrite(fails, now=NOW)
    work.clear_landing()
    assert len(work.prove([site.root], passing_over=[], now=NOW)) == 1
    assert site.holds(DEVICE) == []
    (after,) = site.query(amounts)
    site.load()  # brings the kept sums of the store
    (kept_ones,) = site.query(
        """
        SELECT sum(quantity) FILTER (WHERE charge_class IN ('input_uncached', 'cache_read', 'cache_write_unknown')),
            sum(quantity) FILTER (WHERE charge_class = 'output'), sum(unpriced_turns),
            coalesce(sum(quantity) FILTER (WHERE charge_class = 'reported_cost'), 0)
        FROM wire.kept_charges
        """
    )
    assert before[1] > after[1]
    assert tuple(map(Decimal, before)) == tuple(
        Decimal(one) + Decimal(other) for one, other in zip(after, kept_ones, strict=True)
    )
    assert site.query("SELECT schema_name FROM duckdb_schemas() WHERE schema_name = 'marts'") == []


@pytest.mark.parametrize("is_built", [True, False], ids=["difference of two builds", "turn by turn"])
def test_what_a_try_that_was_cut_off_kept_is_kept_once(
    site: Site, monkeypatch: pytest.MonkeyPatch, is_built: bool
) -> None:
    """Its sums lie in the store already; another request has come since, so that the next try has another name."""

    def die(name: str) -> None:
        if name == "erase.compared":
            raise Killed

    def made(file: Path) -> None:
        if not is_built:
            raise erase.BuildError("a model is broken")
        build(file)

    counted = site.counted()
    site.suppress("device", DEVICE)
    monkeypatch.setattr(failpoints, "hook", die)
    with pytest.raises(Killed):
        erase.Pass(site.warehouse, site.store).rewrite(made, now=NOW)
    monkeypatch.setattr(failpoints, "hook", None)
    site.suppress("user", "bob")
    assert erase.Pass(site.warehouse, site.store).rewrite(made, now=NOW)
    assert len([key for key in site.store.objects if key.startswith(kept.ROOT)]) == 2
    build(site.warehouse)
    assert site.counted() == counted


def test_what_was_loaded_since_the_last_build_is_not_taken_off(site: Site) -> None:
    """A run loads and fails before it builds; the next one erases first. Nothing was counted of what came meanwhile."""
    batch(site.store, {"llm_turns": [turn(21), turn(22)]}, device=OTHER, seq=2, change=by("bob"), minute=30)
    site.load()
    counted = site.counted()
    site.suppress("device", DEVICE)
    assert len(site.erase()) == 1
    build(site.warehouse)
    new = f"record_id IN ('{record('llm_turns 21')}', '{record('llm_turns 22')}')"
    assert site.query(f"SELECT count(DISTINCT record_id) FROM marts.fct_rated_lines WHERE {new}") == [(2,)]
    site.query(f"DELETE FROM marts.fct_rated_lines WHERE {new}")
    assert site.counted() == counted


def test_amounts_of_the_second_of_two_erasures_are_kept(site: Site) -> None:
    """The first one drops what models built, and no run comes in between."""
    counted = site.counted()
    for device in (DEVICE, SHARED):
        site.suppress("device", device)
        assert len(site.erase()) == 1
    build(site.warehouse)
    assert site.counted() == counted


def test_sums_that_release_0_1_0_kept_stay(site: Site, tmp_path: Path) -> None:
    """Its objects name one class of cache writes; they are read by every warehouse and are not kept again."""
    lines = [
        {"charge_class": "cache_write", "unit": "tokens", "unpriced_turns": 0, "quantity": "31"},
        {"charge_class": "reported_cost", "unit": "usd", "unpriced_turns": 2, "quantity": "0.10000000000000000001"},
        {"charge_class": "reported_cost", "unit": "usd", "unpriced_turns": 1, "quantity": None},
    ]
    shared = {"tenant_id": "acme", "model": "unknown", "usage_date": "2026-03-01"}
    site.store.put(f"{kept.ROOT}{'a' * 32}.json", json.dumps([shared | line for line in lines]).encode())
    site.load()
    read = site.query(f"FROM ({KEPT}) ORDER BY ALL")
    day = date(2026, 3, 1)
    assert read == [
        ("acme", day, "unknown", "cache_write", Decimal(31), 0),
        ("acme", day, "unknown", "reported_cost", Decimal("0.10000000000000000001"), 2),
        ("acme", day, "unknown", "reported_cost", None, 1),
    ]
    counted = site.counted()
    site.suppress("device", DEVICE)
    assert len(site.erase()) == 1
    build(site.warehouse)
    assert site.counted() == counted
    rebuilt = tmp_path / "rebuilt" / "apiary.duckdb"
    rebuilt.parent.mkdir()
    site.load(rebuilt)
    build(rebuilt)
    site.warehouse = rebuilt
    assert site.counted() == counted


def test_copies_of_the_warehouse_go(site: Site) -> None:
    folder = site.warehouse.parent
    (folder / "apiary.duckdb.unreadable-20260301T000000").write_bytes(b"torn")
    (folder / "apiary.duckdb.wal.unreadable-20260301T000000").write_bytes(b"torn")
    shutil.copy(site.warehouse, folder / "apiary.before-20260301T000000.duckdb")
    (folder / "apiary.before-20260201T000000.duckdb").write_bytes(b"        DUCK that will not open")
    (folder / "rebuilt").mkdir()
    shutil.copy(site.warehouse, folder / "rebuilt" / "apiary.duckdb")
    duckdb.connect(str(folder / "apiary.before-20260101T000000.duckdb")).close()
    site.suppress("device", DEVICE)
    assert len(site.erase()) == 1
    left = sorted(path.name for path in folder.iterdir())
    assert left == ["apiary.before-20260101T000000.duckdb", "apiary.duckdb", "devices.json"][: len(left)]
    assert site.holds(DEVICE) == []


# searching -----------------------------------------------------------------------------------------------------------

IDS = [record("x"), f"session_20260301_120000_{'ab' * 4}", f"k1_{record('y')}"]


@pytest.fixture
def planted(tmp_path: Path) -> Any:
    def plant(name: str, text: str) -> Path:
        path = tmp_path / name
        if name.endswith(".parquet"):
            frame = pa.table({"a": [f"text {number}" for number in range(1000)] + [text]})
            # Statistics hold the least and the greatest text as it is.
            pq.write_table(frame, path, compression="zstd", write_statistics=False)
        elif name.endswith(".duckdb"):
            with duckdb.connect(str(path)) as connection:
                connection.execute("CREATE TABLE t AS SELECT 'text ' || i AS a FROM range(5000) AS r (i)")
                connection.execute("INSERT INTO t VALUES (?)", [text])
        elif name.endswith(".xlsx"):
            book = openpyxl.Workbook()
            book.create_sheet("second").append(["text", text])
            book.save(path)
        else:
            data = (b"x" * 1001) + text.encode() + b" and more"
            path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    return plant


@pytest.mark.parametrize("name", ["a.parquet", "a.duckdb", "a.log", "a.log.gz", "a.csv", "a.db", "a.json", "a.xlsx"])
@pytest.mark.parametrize("identifier", IDS)
def test_a_planted_identifier_is_found(planted: Any, name: str, identifier: str, tmp_path: Path) -> None:
    path = planted(name, f"landing/{identifier}/m")
    needles = Needles([*IDS, *(record(n) for n in range(50))])
    assert [*residue.files([tmp_path], passing_over=[])] == [path]
    assert [*residue.files([tmp_path], passing_over=[path])] == []
    assert residue.found_in_file(needles, path) == {identifier}
    assert not residue.found_in_file(Needles([record(n) for n in range(50)]), path)


@pytest.mark.parametrize("text", ["ada", '{"user":"ada"}', "acme,ada,m"])
def test_a_name_counts_where_it_stands_alone(planted: Any, text: str) -> None:
    """In every kind of file, also in logs, SQLite and msgpack."""
    needles = Needles([], ["ada"])
    for name in ("a.csv", "a.log", "a.db", "a.msgpack", "a.txt.gz", "a.parquet", "a.duckdb", "a.xlsx"):
        assert residue.found_in_file(needles, planted(name, f"\n{text}")), name
        assert not residue.found_in_file(needles, planted(f"b{name}", "adapter ada-lovelace armada")), name


def test_what_is_left_is_not_receipted(site: Site) -> None:
    line = site.suppress("device", DEVICE)
    (site.root / "forgotten.log").write_text(f"once there was {DEVICE}")
    assert site.erase() == []
    assert re.search(r"still in .*forgotten\.log: remove it", site.failed[line.request_id])
    assert erase.waiting(site.warehouse)[line.request_id]["reason"] == site.failed[line.request_id]
    assert [key for key in site.store.objects if key.startswith("receipts/")] == []
    (site.root / "forgotten.log").unlink()
    assert [erased.request_id for erased in site.erase()] == [line.request_id]
    assert erase.waiting(site.warehouse) == {}
    assert not erase.folder_of(site.warehouse).exists()


@given(
    data=st.binary(max_size=200), needles=st.lists(st.from_regex(r"[ab]{12,20}", fullmatch=True), max_size=4),
    at=st.integers(0, 200), put=st.integers(0, 4),
)  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_the_search_is_a_search(data: bytes, needles: list[str], at: int, put: int) -> None:
    if put < len(needles):
        data = data[:at] + needles[put].encode() + data[at:]
    expected = any(needle.encode() in data for needle in needles)
    assert bool(Needles(needles).found_in(data)) is expected


@given(
    texts=st.lists(st.text("ab \n", max_size=20), max_size=8),
    words=st.lists(st.sampled_from(["a", "bb"])),
    n=st.integers(0, 8),
)
@settings(max_examples=200, deadline=None)
def test_texts_that_hold_a_word_are_found_together_as_each_alone(texts: list[str], words: list[str], n: int) -> None:
    known = record("known")
    texts.insert(n, f"landing/{known}")
    needles = Needles([known], words)
    assert needles.texts_holding(texts) == [text for text in texts if needles.found_in(text.encode())]


def seconds(work: Callable[[], object]) -> float:
    """The least of three times."""
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return min(times)


MANY = [hashlib.sha256(f"{n}".encode()).hexdigest()[:32] for n in range(40_000)]
"""As many identifiers as a user of a few months leaves; of two million turns they are a million."""


def test_a_search_for_many_identifiers_costs_little_more_than_for_one() -> None:
    data = "".join(hashlib.sha256(f"other {n}".encode()).hexdigest() for n in range(2_000)).encode()
    one, many = Needles(MANY[:1]), Needles(MANY)
    assert one.found_in(data) == many.found_in(data) == set()
    assert many.found_in(data + MANY[7].encode()) == {MANY[7]}
    assert seconds(lambda: many.found_in(data)) < 15 * seconds(lambda: one.found_in(data))


def test_many_words_are_looked_up_in_many_rows_at_the_cost_of_both() -> None:
    """Not of each with each."""
    with duckdb.connect() as connection:
        connection.execute("CREATE SCHEMA wire")
        connection.execute("CREATE TABLE wire.ids AS SELECT unnest(?) AS id", [MANY])
        words = {*MANY[::2], *(f"x{name}" for name in MANY[::2])}
        assert renewal.still_there(connection, words) == {*MANY[::2]}
        floor = seconds(lambda: connection.execute("SELECT count(v) FROM (SELECT unnest(?) AS v)", [sorted(words)]))
        assert seconds(lambda: renewal.still_there(connection, words)) < 5 * floor


def test_an_erasure_of_many_identifiers_costs_little_more_than_one_of_few(tmp_path: Path) -> None:
    """As those that a pass has written down which was cut off."""
    times = []
    for identifiers in (MANY[:40], MANY):
        site = Site(tmp_path / str(len(identifiers)))
        line = site.suppress("user", "ada-lovelace")
        journal = erase.Journal({line.request_id: erase.Share(identifiers=identifiers)})
        erase.folder_of(site.warehouse).mkdir()
        (erase.folder_of(site.warehouse) / "journal.json").write_text(json.dumps(asdict(journal)), "utf-8")
        begun = time.perf_counter()
        assert [done.request_id for done in site.erase()] == [line.request_id]
        times.append(time.perf_counter() - begun)
    few, many = times
    assert many < 5 * few


def test_the_end_of_an_identifier_is_not_the_identifier() -> None:
    known = record("known")
    for cut in range(1, len(known)):
        assert not Needles([known]).found_in(f"x{known[cut:]} x".encode())
    assert Needles([known]).found_in(f"x{known} x".encode()) == {known}


def test_gzip_unpacks_to_so_much_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where each member or part of it is small."""
    monkeypatch.setattr(needles, "MAX_UNPACKED_BYTES", 5_000)
    for packed in (gzip.compress(bytes(2_000)) * 3, gzip.compress(bytes(6_000))):
        with pytest.raises(UnsearchableError, match="unpacks_to_too_much"):
            list(needles.unpacked(io.BytesIO(packed)))
    assert b"".join(needles.unpacked(io.BytesIO(gzip.compress(bytes(2_000)) * 2))) == bytes(4_000)


def test_zip_unpacks_to_so_much_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needles, "MAX_UNPACKED_BYTES", 5_000)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for number in range(3):
            file.writestr(f"{number}.xml", bytes(2_000))
    with pytest.raises(UnsearchableError, match="unpacks_to_too_much"):
        list(needles.members_of_zip(archive))
    with pytest.raises(UnsearchableError, match="no_zip"):
        list(needles.members_of_zip(io.BytesIO(archive.getvalue()[:100])))


@settings(max_examples=300, deadline=None)
@given(
    method=st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]),
    at=st.floats(0, 1, exclude_max=True),
    put=st.binary(min_size=1, max_size=8),
)
def test_a_damaged_zip_is_told_and_stops_nothing(method: int, at: float, put: bytes) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", method) as file:
        file.writestr("sheet.xml", b"<t>ada</t>" * 50)
    data = bytearray(archive.getvalue())
    place = int(at * len(data))
    data[place : place + len(put)] = put
    with suppress(UnsearchableError):  # any other error would end the search for everybody
        list(needles.members_of_zip(io.BytesIO(bytes(data))))
