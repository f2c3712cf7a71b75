"""Exactly-once effect: rows and ledger in one transaction, each record once for ever, whatever the order of arrival."""

import itertools
import json
import random
import time
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.contract.ddl import BOOKS
from pipelines.contract.wire import BY_NAME
from pipelines.store import StoreUnavailableError
from pipelines.warehouse import landing, load, quarantine
from pipelines.warehouse.landing import Arrival
from tests.warehouse_part.batches import CLONE, LAPTOP, SERVER, START, MemoryStore, Row, batch, record, row, turn, wire

OLD, YOUNG = "session_20260301_100000_00000001", "session_20260301_110000_00000002"
COUNTS = "sum(rows_in), sum(rows_new), sum(rows_duplicate), sum(rows_conflict)"
BOOK_NAMES = (*BOOKS, *BY_NAME)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def connection() -> Any:
    with wire() as opened:
        yield opened


def everything(connection: duckdb.DuckDBPyConnection) -> dict[str, list[tuple[Any, ...]]]:
    return {name: connection.execute(f"SELECT * FROM wire.{name} ORDER BY ALL").fetchall() for name in BOOK_NAMES}


def sessions_touched(connection: duckdb.DuckDBPyConnection, seq: int) -> set[str]:
    found = connection.execute("SELECT session_id FROM wire.touched_sessions WHERE _ingest_seq = ?", [seq]).fetchall()
    assert len(found) == len(set(found)), "each session once"
    return {session for (session,) in found}


def books_add_up(connection: duckdb.DuckDBPyConnection) -> None:
    """For every batch and table, and between the two books."""
    assert (
        connection.execute(
            "SELECT * FROM wire.row_counts WHERE rows_in <> rows_new + rows_duplicate + rows_conflict"
        ).fetchall()
        == []
    )
    assert (
        connection.execute(
            f"""
        (SELECT manifest_key, rows_in, rows_new, rows_duplicate, rows_conflict FROM wire.batches WHERE rows_in > 0)
        EXCEPT (SELECT manifest_key, {COUNTS} FROM wire.row_counts GROUP BY ALL)
        """
        ).fetchall()
        == []
    )
    for name in BY_NAME:
        kept = connection.execute(
            f"SELECT count(*), count(DISTINCT (tenant_id, record_id)) FROM wire.{name}"
        ).fetchone()
        new = connection.execute(
            "SELECT coalesce(sum(rows_new), 0)::BIGINT FROM wire.row_counts WHERE table_name = ?", [name]
        ).fetchone()
        assert kept is not None
        assert new is not None
        assert kept == (new[0], new[0]), f"{name}: what was new is what is there"


# one transaction ------------------------------------------------------------------------------------------------------


class Broken:
    """A connection that fails at the n-th statement."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, after: int) -> None:
        self._connection = connection
        self._left = after

    def execute(self, statement: str, *arguments: Any) -> Any:
        if "ROLLBACK" not in statement:
            self._left -= 1
            if self._left < 0:
                raise KeyboardInterrupt
        return self._connection.execute(statement, *arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


@pytest.mark.services
def test_a_load_that_dies_anywhere_leaves_nothing_of_its_group(store: MemoryStore) -> None:
    first = batch(store, {"llm_turns": [turn(0)]}, seq=1)
    tables = {"llm_turns": [turn(0), turn(1), turn(2)], "sessions": [row("sessions", 1)], "tasks": [row("tasks", 1)]}
    arrivals = [batch(store, tables, seq=2, device=CLONE), batch(store, {"tasks": b"x"}, seq=3, device=CLONE)]
    died = 0
    for after in range(1, 200, 2):
        with wire() as connection:
            load.load(connection, store, [first])
            before = everything(connection)
            try:
                load.load(Broken(connection, after), store, arrivals)
            except KeyboardInterrupt:
                left = everything(connection)
                died += 1
                if left != before:  # the books were closed: nothing may be missing
                    assert len(left["batches"]) == 3
                    assert [len(left[name]) for name in ("llm_turns", "sessions", "tasks")] == [3, 1, 1]
                loaded = load.load(connection, store, landing.pending(store, load.known_manifests(connection)))
                assert loaded.loaded + loaded.quarantined == loaded.received
                assert [len(everything(connection)[name]) for name in ("batches", "llm_turns", "tasks")] == [3, 3, 1]
                books_add_up(connection)
            else:
                break
    assert died > 10


def test_a_store_that_goes_away_leaves_what_was_loaded_before(
    store: MemoryStore, connection: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "GROUP", 2)
    arrivals = [batch(store, {"llm_turns": [turn(n)]}, seq=n + 1, minute=n) for n in range(5)]
    get = store.get

    def away(key: str, *, limit: int | None = None) -> bytes:
        if "/m/0000000004-" in key:
            raise StoreUnavailableError("gone")
        return get(key, limit=limit)

    monkeypatch.setattr(store, "get", away)
    with pytest.raises(StoreUnavailableError):
        load.load(connection, store, arrivals)
    assert connection.execute("SELECT seq FROM wire.batches ORDER BY seq").fetchall() == [(1,), (2,), (3,)]
    monkeypatch.setattr(store, "get", get)
    assert load.load(connection, store, arrivals).received == 2
    books_add_up(connection)


def test_a_wire_of_an_earlier_release_is_widened_and_keeps_its_rows(store: MemoryStore) -> None:
    """Test 79, in part: nothing was released yet."""
    added = {(name, c.name) for name, table in BY_NAME.items() for c in table.columns if c.is_addition}
    assert added
    with wire() as connection:
        load.load(connection, store, [batch(store, {name: [row(name)] for name, _ in added})])
        for name, column in added:
            connection.execute(f"ALTER TABLE wire.{name} DROP COLUMN {column}")
        load.prepare(connection)
        full = {
            name: row(name, 1, **dict.fromkeys((n for n in BY_NAME[name].superseded_by if n.startswith("is_")), True))
            for name, _ in added
        }
        load.load(connection, store, [batch(store, {name: [found] for name, found in full.items()}, seq=2)])
        for name, column in added:
            found = connection.execute(f"SELECT {column} IS NULL FROM wire.{name} ORDER BY _ingest_seq").fetchall()
            assert found == [(True,), (False,)], (name, column)


def test_loading_twice_is_nothing(store: MemoryStore, connection: duckdb.DuckDBPyConnection) -> None:
    """I1: every table is as it was, however often the same batches are loaded, refused ones too."""
    arrivals = [
        batch(store, {"llm_turns": [turn(1)]}, seq=1),
        batch(store, {"llm_turns": [turn(2)]}, seq=2),
        batch(store, {"llm_turns": b"x"}, seq=3),
    ]
    told: list[tuple[int, int]] = []
    loaded = load.load(connection, store, arrivals, progress=lambda done, of: told.append((done, of)))
    assert told == [(3, 3)]
    assert load.known_manifests(connection) == {arrival.key for arrival in arrivals}
    before = everything(connection)
    for _ in range(3):
        again = load.load(connection, store, arrivals)
        assert again == load.Loaded()
        assert everything(connection) == before
    assert (loaded.received, loaded.loaded, loaded.quarantined, loaded.rows_new) == (3, 2, 1, 2)
    assert loaded.new_by_table == {"llm_turns": 2}


def test_the_number_of_a_load_rises_also_when_everything_is_refused(
    store: MemoryStore, connection: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "GROUP", 1)
    arrivals = [batch(store, {"llm_turns": [turn(n)] if n != 1 else b"x"}, seq=n + 1, minute=n) for n in range(4)]
    load.load(connection, store, arrivals)
    assert connection.execute("SELECT seq, ingest_seq FROM wire.batches ORDER BY seq").fetchall() == [
        (1, 1), (2, 2), (3, 3), (4, 4)
    ]  # fmt: skip
    assert connection.execute("SELECT _ingest_seq FROM wire.llm_turns ORDER BY ALL").fetchall() == [(1,), (3,), (4,)]


def test_a_group_is_closed_by_its_rows_too(
    store: MemoryStore, connection: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """256 full batches at once would be millions of rows in memory."""
    monkeypatch.setattr(load, "GROUP_ROWS", 5)
    arrivals = [batch(store, {"llm_turns": [turn((n, m)) for m in range(3)]}, seq=n + 1, minute=n) for n in range(5)]
    load.load(connection, store, arrivals)
    found = connection.execute("SELECT ingest_seq, count(*) FROM wire.batches GROUP BY 1 ORDER BY 1").fetchall()
    assert found == [(1, 2), (2, 2), (3, 1)]


def test_what_a_refused_batch_claims_stops_no_other(store: MemoryStore, connection: duckdb.DuckDBPyConnection) -> None:
    def boast(manifest: Row) -> None:
        manifest["objects"] = [{"table": "none", "rows": 10**18}] * 10

    batch(store, {}, tenant="evil", change=boast)
    batch(store, {"llm_turns": [turn()]})
    loaded = load.load(connection, store, landing.pending(store, ()))
    assert (loaded.loaded, loaded.quarantined) == (1, 1)


def test_a_batch_that_does_not_fit_the_warehouse_is_refused_alone(
    store: MemoryStore, connection: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the checks before it let through: rows, and what a manifest says."""
    connection.execute("ALTER TABLE wire.llm_turns ALTER output_tokens TYPE SMALLINT")
    for seq in range(1, 9):
        batch(store, {"llm_turns": [turn(seq, output_tokens=1 if seq != 5 else 40_000)]}, seq=seq, minute=seq)
    monkeypatch.setattr(landing, "MAX_ROWS", 2**70)
    refused = batch(store, {}, seq=9, minute=9, change=lambda m: m.update(objects=[{"table": "none", "rows": 2**65}]))
    loaded = load.load(connection, store, landing.pending(store, ()))
    assert (loaded.received, loaded.loaded, loaded.quarantined, loaded.rows_new) == (9, 7, 2, 7)
    assert loaded.reasons == {load.UNLOADABLE: 2}
    lines = connection.execute("SELECT seq, reason, user_id FROM wire.batches WHERE status <> 'loaded' ORDER BY seq")
    assert lines.fetchall() == [(5, load.UNLOADABLE, None), (9, load.UNLOADABLE, None)]
    assert landing.pending(store, load.known_manifests(connection)) == []
    monkeypatch.undo()
    assert quarantine.may_pass(connection) == set()
    connection.execute("UPDATE wire.batches SET gate_hash = 'of an older release'")
    assert len(quarantine.may_pass(connection)) == 2
    connection.execute("ALTER TABLE wire.llm_turns ALTER output_tokens TYPE BIGINT")
    again = load.load(connection, store, landing.pending(store, ()), again=load.known_manifests(connection))
    assert (again.loaded, again.reasons) == (8, {"unknown_schema": 1})
    assert refused.key in load.known_manifests(connection)


def test_lineage_is_taken_from_the_key(store: MemoryStore, connection: duckdb.DuckDBPyConnection) -> None:
    arrival = batch(store, {"llm_turns": [turn(1)]}, tenant="bolt", device=SERVER, minute=5)
    load.load(connection, store, [arrival])
    found = connection.execute(
        "SELECT tenant_id, region, _user_id, _device_id, _manifest_key, _received_at, _ingest_seq FROM wire.llm_turns"
    ).fetchall()
    assert found == [("bolt", "eu", "ada", SERVER, arrival.key, START + timedelta(minutes=5), 1)]


# duplicates and conflicts ---------------------------------------------------------------------------------------------


def test_a_record_counts_once_for_each_tenant(store: MemoryStore, connection: duckdb.DuckDBPyConnection) -> None:
    load.load(connection, store, [
        batch(store, {"llm_turns": [turn(1)]}, device=LAPTOP, minute=0),
        batch(store, {"llm_turns": [turn(1), turn(2)]}, device=CLONE, minute=1),
        batch(store, {"llm_turns": [turn(1)]}, tenant="bolt", device=SERVER, minute=2),
    ])  # fmt: skip
    counts = connection.execute(
        "SELECT device_id, rows_in, rows_new, rows_duplicate, rows_conflict FROM wire.batches ORDER BY device_id"
    ).fetchall()
    assert counts == [(LAPTOP, 1, 1, 0, 0), (CLONE, 2, 1, 1, 0), (SERVER, 1, 1, 0, 0)]
    assert connection.execute("SELECT count(*) FROM wire.llm_turns").fetchone() == (3,)
    books_add_up(connection)


@pytest.mark.parametrize("together", [True, False])
def test_of_two_stories_the_first_to_arrive_stays(
    store: MemoryStore, connection: duckdb.DuckDBPyConnection, together: bool
) -> None:
    """I4: the other one is set aside, once; it changes no total, whichever row would win among copies."""
    first = batch(store, {"llm_turns": [turn(1, session_id=YOUNG, output_tokens=10)]}, device=SERVER, minute=0)
    other = batch(store, {"llm_turns": [turn(1, session_id=OLD, output_tokens=99)]}, device=LAPTOP, minute=1)
    for arrivals in ([first, other],) if together else ([first], [other]):
        load.load(connection, store, arrivals)
    assert connection.execute("SELECT output_tokens, session_id FROM wire.llm_turns").fetchall() == [(10, YOUNG)]
    ((table, tenant, number, kept, aside, manifest),) = connection.execute(
        "SELECT table_name, tenant_id, record_id, kept_hash, other_hash, manifest_key FROM wire.conflicts"
    ).fetchall()
    assert (table, tenant, number, manifest) == ("llm_turns", "acme", record("llm_turns 1"), other.key)
    assert kept != aside
    assert len(kept) == len(aside) == 64
    counts = connection.execute("SELECT rows_conflict, turn_rows_conflict FROM wire.row_counts ORDER BY 1").fetchall()
    assert counts == [(0, 0), (1, 1)]
    books_add_up(connection)


@pytest.mark.parametrize(
    "other",
    [
        {"input_tokens": 2}, {"stop_reason": "length"}, {"stop_reason": None}, {"reported_cost_usd": Decimal("0.26")},
        {"reported_cost_usd": None}, {"iteration": 2}, {"cache_read_input_tokens": None},
        {"cache_read_input_tokens": None, "cache_write_input_tokens": 1, "iteration": None}, {"stream_id": "judge"},
        {"parent_session_id": OLD},
    ],
)  # fmt: skip
def test_a_fact_that_differs_is_a_conflict(
    store: MemoryStore, connection: duckdb.DuckDBPyConnection, other: Row
) -> None:
    load.load(
        connection,
        store,
        [batch(store, {"llm_turns": [turn(1)]}), batch(store, {"llm_turns": [turn(1, **other)]}, seq=2)],
    )
    assert connection.execute(f"SELECT {COUNTS} FROM wire.row_counts").fetchone() == (2, 1, 0, 1)


@pytest.mark.parametrize(
    "other",
    [
        {"session_id": OLD}, {"model": f"k1_{'1' * 32}"}, {"node_id": f"k1_{'1' * 32}"},
        {"time_basis": "local_resolved"},
        {"occurred_at": START + timedelta(hours=1)}, {"stream_id": f"k1_{'1' * 32}"}, {"is_time_ambiguous": None},
        {"parent_session_id": f"k1_{'2' * 32}"},
    ],
)  # fmt: skip
def test_what_two_devices_may_tell_differently_is_none(
    store: MemoryStore, connection: duckdb.DuckDBPyConnection, other: Row
) -> None:
    """Names under their own keys, times in their own zones, and a fork's copy that names its own session."""
    load.load(
        connection,
        store,
        [batch(store, {"llm_turns": [turn(1)]}), batch(store, {"llm_turns": [turn(1, **other)]}, seq=2)],
    )
    assert connection.execute(f"SELECT {COUNTS} FROM wire.row_counts").fetchone() == (2, 1, 1, 0)


RESPONSE: Row = {"turn_grain": "response", "is_copy": False, "is_sidechain": False, "transcript_ended_at": START}
PARTIAL: Row = RESPONSE | {"is_final": False, "output_tokens": 3, "stop_reason": None}
FINAL: Row = RESPONSE | {"is_final": True, "output_tokens": 212, "occurred_at": START + timedelta(seconds=3)}
COPY: Row = FINAL | {"session_id": OLD, "is_copy": True}
SIDECHAIN: Row = FINAL | {"session_id": OLD, "is_sidechain": True, "parent_session_id": YOUNG, "agent_role": "worker"}
LONGER: Row = FINAL | {"session_id": OLD, "transcript_ended_at": START + timedelta(hours=1)}


@pytest.mark.parametrize("orders", list(itertools.permutations([PARTIAL, FINAL, COPY, SIDECHAIN, LONGER], 3)))
def test_of_observations_of_a_response_the_last_one_speaks_for_its_origin(
    orders: Sequence[Row], store: MemoryStore, connection: duckdb.DuckDBPyConnection
) -> None:
    """A streamed response is read while it is written, and in copies: one row is left, the same in any order."""
    for seq, observed in enumerate(orders, 1):
        found = batch(store, {"llm_turns": [turn(1, **{"session_id": YOUNG, **observed})]}, seq=seq, minute=seq)
        load.load(connection, store, [found])
    (left,) = connection.execute("SELECT output_tokens, is_final, session_id FROM wire.llm_turns").fetchall()
    is_final = any(observed["is_final"] for observed in orders)
    expected = FINAL if is_final else PARTIAL
    origins = [observed.get("session_id", YOUNG) for observed in orders if observed["is_final"] == is_final]
    assert left == (expected["output_tokens"], is_final, YOUNG if YOUNG in origins else OLD)
    assert connection.execute("SELECT count(*) FROM wire.conflicts").fetchone() == (0,)
    books_add_up(connection)


def test_raw_lines_that_collapsed_are_turns_only(store: MemoryStore, connection: duckdb.DuckDBPyConnection) -> None:
    """A compaction marker is no turn; a naive sum would not count it."""
    rows = {
        "llm_turns": [turn(1)],
        "tool_calls": [row("tool_calls", 1)],
        "node_steps": [row("node_steps", 1, step_index=0), row("node_steps", 2, step_index=-1)],
    }
    load.load(connection, store, [batch(store, rows), batch(store, rows, device=CLONE, minute=1)])
    found = connection.execute(
        "SELECT table_name, rows_duplicate, turn_rows_duplicate FROM wire.row_counts"
        " WHERE rows_duplicate > 0 ORDER BY table_name"
    ).fetchall()
    assert found == [("llm_turns", 1, 1), ("node_steps", 2, 1), ("tool_calls", 1, 0)]


# the order of arrival -------------------------------------------------------------------------------------------------


def test_touched_sessions_names_who_lost_a_row_too(store: MemoryStore, connection: duckdb.DuckDBPyConnection) -> None:
    fork = batch(store, {"llm_turns": [turn(1, session_id=YOUNG)]}, minute=0)
    original = batch(store, {"llm_turns": [turn(1, session_id=OLD)]}, seq=2, minute=1)
    again = batch(store, {"llm_turns": [turn(1, session_id=YOUNG)]}, seq=3, minute=2)
    load.load(connection, store, [fork])
    assert sessions_touched(connection, 1) == {YOUNG}
    load.load(connection, store, [original])
    assert sessions_touched(connection, 2) == {OLD, YOUNG}
    assert connection.execute("SELECT session_id, _ingest_seq FROM wire.llm_turns").fetchall() == [(OLD, 2)]
    load.load(connection, store, [again])
    assert sessions_touched(connection, 3) == set(), "nothing changed"
    assert connection.execute("SELECT rows_new, rows_duplicate FROM wire.batches ORDER BY seq").fetchall() == [
        (1, 0), (0, 1), (0, 1)
    ]  # fmt: skip


@pytest.mark.parametrize(("table", "column"), [("tasks", "list_id"), ("colonies", "queen_session_id")])
def test_sessions_are_touched_under_every_name(
    store: MemoryStore, connection: duckdb.DuckDBPyConnection, table: str, column: str
) -> None:
    rows = {table: [row(table, 1, **{column: OLD})], "llm_turns": [turn(2, session_id=YOUNG)]}
    load.load(connection, store, [batch(store, rows)])
    assert sessions_touched(connection, 1) == {OLD, YOUNG}


def test_a_corrected_zone_touches_the_sessions_of_its_device(
    store: MemoryStore, connection: duckdb.DuckDBPyConnection
) -> None:
    """Their local times are resolved again; a report in the same zone, or of another device, touches nothing."""
    here = turn(1, session_id=OLD, time_basis="local_resolved", offset_basis="device_zone", utc_offset_seconds=3600)

    def report(number: int, zone: str) -> dict[str, list[Row]]:
        at = START + timedelta(minutes=number)
        return {"device_reports": [row("device_reports", number, timezone=zone, run=number, started_at=at)]}

    arrivals = [
        batch(store, {"llm_turns": [here], **report(1, "Europe/Berlin")}, seq=1, minute=1),
        batch(store, {"llm_turns": [turn(2, session_id=YOUNG)]}, device=CLONE, minute=1),
        batch(store, report(2, "Europe/Berlin"), seq=2, minute=2),
        batch(store, report(3, "Asia/Tokyo"), seq=3, minute=3),
        batch(store, report(4, "Asia/Tokyo"), seq=4, minute=4),
        batch(store, report(5, "Europe/Berlin"), seq=5, minute=5),
    ]
    touched = []
    for seq, arrival in enumerate(arrivals, 1):
        load.load(connection, store, [arrival])
        touched.append(sessions_touched(connection, seq))
    assert touched == [{OLD}, {YOUNG}, set(), {OLD}, set(), {OLD}]


@pytest.mark.parametrize("first", [0, 1])
def test_of_two_copies_the_better_evidence_of_the_clock_is_kept(
    store: MemoryStore, connection: duckdb.DuckDBPyConnection, first: int
) -> None:
    """Whichever arrives first, and whosever id is less: the writer's own epoch time says more than a device's zone."""
    zoned = turn(1, offset_basis="device_zone", utc_offset_seconds=3600)
    proven = turn(1, offset_basis="run_created_at", utc_offset_seconds=-18000, occurred_at=START + timedelta(hours=6))
    sent = [(LAPTOP, zoned), (CLONE, proven)]
    order = [sent[first], sent[1 - first]]
    load.load(
        connection,
        store,
        [batch(store, {"llm_turns": [one]}, device=device, minute=n) for n, (device, one) in enumerate(order)],
    )
    kept = connection.execute("SELECT offset_basis, utc_offset_seconds FROM wire.llm_turns").fetchall()
    assert kept == [("run_created_at", -18000)]


def fleet(rng: random.Random, store: MemoryStore) -> list[Arrival]:
    """Batches of three devices with many copies: owners, observations, names and times differ, the facts do not."""
    arrivals = []
    for number in range(10):
        device = rng.choice((LAPTOP, CLONE, SERVER))
        key = {LAPTOP: "1", CLONE: "2", SERVER: "3"}[device] * 32
        tables: dict[str, list[Row]] = {"llm_turns": [], "sessions": [], "node_steps": []}
        for record_number in rng.choices(range(8), k=5):  # also twice in one batch
            loose = {
                "session_id": rng.choice((OLD, YOUNG)), "node_id": f"k1_{key}", "parent_session_id": f"k1_{key}",
                "time_basis": rng.choice(("utc", "local_resolved")), "is_time_ambiguous": rng.choice((True, None)),
                "occurred_at": START + timedelta(hours=rng.randrange(3)),
            }  # fmt: skip
            tables["llm_turns"].append(turn(record_number, input_tokens=record_number, **loose))
            seen = {
                "observed_at": rng.choice((None, START, START + timedelta(hours=1))),
                "user_id": rng.choice(("ada", "bob")),
            }
            tables["sessions"].append(row("sessions", record_number, session_id=rng.choice((OLD, YOUNG)), **seen))
            late = {"file_modified_at": START + timedelta(hours=rng.randrange(3)), "source_line": rng.randrange(1, 4)}
            tables["node_steps"].append(row("node_steps", record_number, session_id=OLD, **late))
        arrivals.append(
            batch(
                store, tables, device=device, seq=number + 1, minute=rng.randrange(4),
                tenant="acme" if number % 4 else "bolt",
            )
        )  # fmt: skip
    return arrivals


def loaded_in(connection: duckdb.DuckDBPyConnection, store: MemoryStore, parts: Sequence[Sequence[Arrival]]) -> str:
    for part in parts:
        load.load(connection, store, part)
    books_add_up(connection)
    assert connection.execute("SELECT count(*) FROM wire.conflicts").fetchone() == (0,)
    return load.wire_hash(connection)


@pytest.mark.parametrize("seed", range(3))
def test_the_wire_does_not_depend_on_the_order(store: MemoryStore, seed: int) -> None:
    """I2: any order and any split of the batches; tests/dbt/test_incremental.py goes on from here to the marts."""
    rng = random.Random(seed)
    arrivals = fleet(rng, store)
    with wire() as connection:
        expected = loaded_in(connection, store, [arrivals])
        owners = connection.execute("SELECT count(DISTINCT _device_id) FROM wire.llm_turns").fetchone()
        assert owners is not None
        assert owners[0] > 1, "the test is about copies"
    for _ in range(4):
        rng.shuffle(arrivals)
        cuts = sorted(rng.sample(range(1, len(arrivals)), rng.randrange(len(arrivals))))
        parts = [arrivals[start:end] for start, end in zip([0, *cuts], [*cuts, len(arrivals)], strict=True)]
        with wire() as connection:
            assert loaded_in(connection, store, parts) == expected, f"seed {seed}: {cuts}"


@settings(max_examples=12, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 4), st.integers(1, 2), st.booleans()), max_size=5), min_size=1, max_size=5
    )
)
def test_every_row_of_a_batch_is_new_again_or_set_aside(batches: list[list[tuple[int, int, bool]]]) -> None:
    """I3: of each batch that was loaded; one that was refused has no row anywhere, and says why."""
    store = MemoryStore()
    arrivals = []
    for number, rows in enumerate(batches):
        told = [turn(name, output_tokens=tokens) for name, tokens, _ in rows]
        is_broken = any(broken for *_, broken in rows) and number % 2 == 1
        arrivals.append(batch(store, {"llm_turns": b"x" if is_broken else told}, seq=number + 1, minute=number))
    with wire() as connection:
        load.load(connection, store, arrivals)
        books_add_up(connection)
        found = connection.execute(
            "SELECT seq, status, reason IS NOT NULL, rows_in, rows_new + rows_duplicate + rows_conflict"
            " FROM wire.batches ORDER BY seq"
        ).fetchall()
        assert len(found) == len(batches)
        for (_, status, has_reason, rows_in, accounted), rows in zip(found, batches, strict=True):
            assert (rows_in or 0) == (accounted or 0)
            assert has_reason == (status == "quarantined")
            assert (rows_in or 0) == (len(rows) if status == "loaded" else 0)


def test_two_stories_in_one_batch_always_end_the_same_way() -> None:
    """Their order in the file decides nothing."""
    found = set()
    for flip in (1, -1):
        store = MemoryStore()
        rows = [turn(1, output_tokens=tokens) for tokens in (5, 6, 7)][::flip]
        with wire() as connection:
            load.load(connection, store, [batch(store, {"llm_turns": rows})])
            found.add(load.wire_hash(connection))
            assert connection.execute(f"SELECT {COUNTS} FROM wire.row_counts").fetchone() == (3, 1, 0, 2)
    assert len(found) == 1


def test_of_two_copies_in_one_batch_the_same_one_is_always_kept() -> None:
    found = set()
    for flip in (1, -1):
        store = MemoryStore()
        rows = [row("node_steps", 1, session_id=OLD, source_line=line) for line in (3, 1, 2)][::flip]
        with wire() as connection:
            load.load(connection, store, [batch(store, {"node_steps": rows})])
            found.add(load.wire_hash(connection))
            assert connection.execute(f"SELECT {COUNTS} FROM wire.row_counts").fetchone() == (3, 1, 2, 0)
    assert len(found) == 1


def test_the_hash_of_the_wire_sees_every_value(store: MemoryStore, connection: duckdb.DuckDBPyConnection) -> None:
    load.load(connection, store, [batch(store, {"llm_turns": [turn(1), turn(2)]})])
    hashes = {load.wire_hash(connection)}
    for change in (
        "output_tokens = output_tokens + 1",
        "reported_cost_usd = cast('0.25000000000000000001' AS DECIMAL(38, 20))",
        "tenant_id = 'x'",
    ):
        connection.execute(f"UPDATE wire.llm_turns SET {change} WHERE record_id = ?", [record("llm_turns 1")])
        hashes.add(load.wire_hash(connection))
    assert len(hashes) == 4


# speed ----------------------------------------------------------------------------------------------------------------


@pytest.mark.services
def test_tiny_batches_load_in_time_that_grows_with_their_number(store: MemoryStore, record_property: Any) -> None:
    """Test 77: 2,000 batches of one row against one batch of 2,000 rows: what a batch costs on its own is bounded, and
    the last thousand costs what the first did."""
    arrivals = [batch(store, {"llm_turns": [turn(n)]}, seq=n + 1, minute=n / 60) for n in range(2_000)]
    large = batch(store, {"llm_turns": [turn(n) for n in range(2_000)]}, device=CLONE)

    def seconds(parts: Sequence[Sequence[Arrival]]) -> list[float]:
        with wire() as connection:
            took = []
            for part in parts:
                begun = time.process_time()
                assert load.load(connection, store, part).rows_new == sum(2_000 if a is large else 1 for a in part)
                took.append(time.process_time() - begun)
            return took

    (whole,) = seconds([[large]])
    first, second = seconds([arrivals[:1_000], arrivals[1_000:]])
    ratio = (first + second) / whole
    record_property("tiny_to_one", ratio)
    assert (first + second) / 2_000 < 0.01, f"{ratio:.0f} times one batch with the same rows"
    assert second < 2 * first + 0.5, "a load must not search what was loaded before batch by batch"


@pytest.mark.parametrize("others", [0, 1])
def test_a_batch_that_lacks_an_object_waits_for_it(
    store: MemoryStore, connection: duckdb.DuckDBPyConnection, others: int
) -> None:
    """A landing that is being copied may bring the manifest first; no line in the ledger may say it was looked at."""
    waiting = batch(store, {"llm_turns": [turn("late")]})
    arrivals = [waiting, *(batch(store, {"llm_turns": [turn(n)]}) for n in range(others))]
    (key,) = (
        key for key in json.loads(store.objects[waiting.key])["objects"][0].values() if str(key).endswith("parquet")
    )
    body = store.objects.pop(key)
    first = load.load(connection, store, arrivals)
    assert (first.incomplete, first.received, first.loaded) == (1, others, others)
    assert waiting.key not in load.known_manifests(connection)
    store.objects[key] = body
    second = load.load(connection, store, arrivals)
    assert (second.incomplete, second.loaded, second.rows_new) == (0, 1, 1)
