"""The books of delivery: they balance, they show what is missing, and a planted residue stops a run."""

import hashlib
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from pipelines.warehouse import landing, load
from tests.warehouse import Warehouse
from tests.warehouse_part.batches import CLONE, EPOCH, LAPTOP, START, MemoryStore, batch, row, turn

MODELS = (
    "--select", "+mart_coverage", "+mart_delivery_balance", "+mart_manifest_chain", "+mart_unknown_records",
)  # fmt: skip
NO_UNIT_TESTS = ("--exclude-resource-type", "unit_test")
TOUCHED = ("source_files", "batches", "batch_objects")
DAY = 24 * 60


def chained(store: MemoryStore, seq: int, tables: dict[str, Any], previous: str | None, **options: Any) -> str:
    """A batch that names the one before it; its own hash."""
    arrival = batch(store, tables, seq=seq, change=lambda m: m.update(previous_manifest_sha256=previous), **options)
    return hashlib.sha256(store.get(arrival.key)).hexdigest()


def read(number: int, *, day: int = 1, **given: Any) -> dict[str, Any]:
    """What a run read of a file."""
    names = ("duplicate", "skipped", "rejected", "before_consent", "salvaged")
    reasons = ("torn", "nul_fill", "bad_utf8", "too_long", "bad_type", "tail_abandoned")
    given = dict.fromkeys([f"lines_rejected_{reason}" for reason in reasons], 0) | given
    counts = dict.fromkeys(names, 0)
    lines = {f"lines_{name}": given.pop(name, count) for name, count in counts.items()}
    return row(
        "source_files", number, **{"lines_staged": 5, "turn_lines_seen": 0, "turn_lines_duplicate": 0,
        "outcome": "read", "source_lost_bytes": 0, "lines_unknown": 0, "fields_unknown": 0, "source_layout": "v2",
        "observed_at": datetime(2026, 3, day, 12, tzinfo=UTC)} | lines | given,
    )  # fmt: skip


def deliver(warehouse: Warehouse) -> None:
    """Two devices: one is silent and loses batches on the way, one has a fork, a rollback and a tombstone."""
    store = MemoryStore()
    first = chained(store, 1, {
        "llm_turns": [turn(1, reported_cost_usd=Decimal("0.25")), turn(2, reported_cost_usd=None)],
        "source_files": [
            read(1, duplicate=2, skipped=3, rejected=1, lines_rejected_torn=1, lines_unknown=7, fields_unknown=2),
            read(2, outcome="corrupt"),
        ],
    }, None)  # fmt: skip
    chained(store, 2, {"llm_turns": [turn(1, reported_cost_usd=Decimal("0.25"))]}, first, minute=DAY)
    chained(store, 3, {"llm_turns": b"no parquet"}, "0" * 64, minute=DAY)
    chained(
        store, 6, {"source_files": [read(3, day=4, source_lost_bytes=77, source_layout="v3")]}, "1" * 64, minute=3 * DAY
    )
    sent = chained(store, 1, {"llm_turns": [turn(1, input_tokens=99)]}, None, device=CLONE, minute=5 * DAY)
    chained(store, 1, {"llm_turns": [turn(3)]}, None, device=CLONE, minute=5 * DAY)
    chained(store, 2, {"llm_turns": [turn(4)]}, sent, device=CLONE, minute=6 * DAY)
    chained(store, 3, {"llm_turns": [turn(5)]}, "2" * 64, device=CLONE, minute=6 * DAY)
    lost = {"reason": "dropped_when_full", "rows": {"llm_turns": 4}}
    batch(store, {}, seq=4, device=CLONE, minute=6 * DAY, change=lambda m: m.update(tombstone=lost))
    with warehouse.connect() as connection:
        load.prepare(connection)
        loaded = load.load(connection, store, landing.pending(store, ()))
    assert (loaded.quarantined, loaded.tombstones, loaded.rows_conflict) == (1, 1, 1)


def test_the_books_balance_and_show_what_is_missing(warehouse: Warehouse) -> None:
    """Test 44: gaps, forks and rollbacks of chains are noted by name in the run after the load; a residue stops it."""
    deliver(warehouse)
    warehouse.build(*MODELS, *NO_UNIT_TESTS)
    balance = warehouse.query(
        "select device_id, day(delivery_date), lines_seen, rows_staged, rows_loaded, rows_duplicate, rows_conflict,"
        " rows_quarantined, rows_dropped, tokens_staged, tokens_loaded, tokens_duplicate, tokens_conflict"
        " from marts.mart_delivery_balance order by all"
    )
    assert balance == [
        (LAPTOP, 1, 16, 4, 4, 0, 0, 0, 0, 4, 4, 0, 0),
        (LAPTOP, 2, 0, 1, 0, 1, 0, 0, 0, 2, 0, 2, 0),
        (LAPTOP, 4, 5, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0),
        (CLONE, 6, 0, 2, 1, 0, 1, 0, 0, 102, 2, 0, 100),
        (CLONE, 7, 0, 6, 2, 0, 0, 0, 4, 4, 4, 0, 0),
    ]
    coverage = warehouse.query(
        "select device_id, day(delivery_date), lines_rejected_torn, unreadable_files, source_lost_bytes, silent_days,"
        " rows_sent, rows_dropped, known_as_of from marts.mart_coverage order by all"
    )
    now = datetime(2026, 3, 7, 12, tzinfo=UTC)
    assert coverage == [
        (LAPTOP, 1, 1, 1, 0, 0, 4, 0, now), (LAPTOP, 2, 0, 0, 0, 1, 1, 0, now), (LAPTOP, 4, 0, 0, 77, 3, 1, 0, now),
        (CLONE, 6, 0, 0, 0, 0, 2, 0, now), (CLONE, 7, 0, 0, 0, 0, 6, 4, now),
    ]  # fmt: skip
    chain = warehouse.query(
        "select device_id, epoch, last_seq, missing_batches, gaps, forks, rollbacks, is_dense, is_overdue,"
        " oldest_gap_at from marts.mart_manifest_chain order by all"
    )
    assert chain == [
        (LAPTOP, EPOCH, 6, 2, 1, 0, 1, False, True, START.replace(day=4)),
        (CLONE, EPOCH, 4, 0, 0, 1, 1, False, False, None),
    ]

    unknown = warehouse.query(
        "select device_id, source_kind, source_layout, uploader_version, day(delivery_date), files_read, lines_unknown,"
        " fields_unknown from marts.mart_unknown_records order by all"
    )
    assert unknown == [
        (LAPTOP, "events", "v2", "unknown", 1, 2, 7, 2),
        (LAPTOP, "events", "v3", "unknown", 4, 1, 0, 0),
    ]

    # The chain's trouble is noted by name, a residue stops.
    noted = warehouse.dbt("test", "--select", "assert_no_chain_is_broken", "assert_no_record_is_unknown")
    assert sorted((result.status, result.failures) for result in noted.result) == [("warn", 1), ("warn", 2)]
    before = warehouse.marts()
    for planted in (
        "update wire.source_files set lines_staged = lines_staged + 1 where lines_salvaged = 0 and run is not null",
        "update wire.batches set rows_new = rows_new - 1 where rows_new > 0",
        "update wire.batch_objects set input_tokens_claimed = 1000, output_tokens_claimed = 0",
    ):
        for table in TOUCHED:
            warehouse.execute(f"create or replace table main.{table} as from wire.{table}")
        warehouse.execute(planted)
        assert not warehouse.dbt("build", *MODELS, *NO_UNIT_TESTS, "--full-refresh").success, planted
        for table in TOUCHED:
            warehouse.execute(f"delete from wire.{table}; insert into wire.{table} from main.{table}")
            warehouse.execute(f"drop table main.{table}")
    warehouse.build(*MODELS, *NO_UNIT_TESTS, "--full-refresh")
    assert warehouse.marts() == before


def test_what_refused_batches_claim_breaks_no_sum(warehouse: Warehouse) -> None:
    """Nobody proved it, and they cost their sender nothing: as many as it takes to pass a BIGINT."""
    store, most = MemoryStore(), landing.MAX_OBJECT_TOKENS
    most_tokens = {"rows": landing.MAX_ROWS, "input_tokens": most, "output_tokens": most}
    for seq in range(1, 1_001):
        batch(store, {"llm_turns": b""}, seq=seq, change=lambda m: m["objects"][0].update(most_tokens))
    # Its manifest claims the tokens of one table only.
    partly = {"llm_turns": [turn(1)], "node_steps": [row("node_steps", 2, input_tokens=30, output_tokens=4)]}
    tokens = {"input_tokens": 1, "output_tokens": 1}
    batch(store, partly, seq=1_001, minute=DAY, change=lambda m: m["objects"][0].update(tokens))
    with warehouse.connect() as connection:
        load.prepare(connection)
        loaded = load.load(connection, store, landing.pending(store, ()))
        # Of a release that let through what no batch can hold.
        connection.execute("UPDATE wire.batches SET rows_claimed = 9000000000000000000 WHERE seq <= 10")
    assert (loaded.loaded, loaded.quarantined) == (1, 1_000)
    warehouse.build(*MODELS, *NO_UNIT_TESTS)
    assert warehouse.query(
        "select day(delivery_date), tokens_staged, tokens_loaded, tokens_quarantined, rows_quarantined"
        " from marts.mart_delivery_balance order by all"
    ) == [
        (1, 1_000 * 10**12, 0, 1_000 * 10**12, 10 * 10**7 + 990 * landing.MAX_ROWS),
        (2, 36, 36, 0, 0),
    ]  # fmt: skip


@pytest.mark.parametrize("order", [1, -1])
def test_books_do_not_depend_on_the_order_of_loads(warehouse: Warehouse, order: int) -> None:
    store = MemoryStore()
    arrivals = [
        batch(
            store,
            {"source_files": [read(seq, day=1 + seq % 2)], "llm_turns": [turn(seq % 2)]},
            seq=seq,
            minute=seq * 600,
        )
        for seq in range(1, 5)
    ]
    for arrival in arrivals[::order]:
        with warehouse.connect() as connection:
            load.prepare(connection)
            load.load(connection, store, [arrival])
        if arrival.parts.seq in (2, 3):
            warehouse.run(*MODELS)
    warehouse.run(*MODELS)
    found = warehouse.marts()
    warehouse.run(*MODELS, "--full-refresh")
    assert warehouse.marts() == found
    sums = warehouse.query(
        "select sum(lines_seen), sum(rows_staged), sum(rows_unexplained) from marts.mart_delivery_balance"
    )
    assert sums == [(20, 8, 0)]


def test_what_a_double_count_would_have_cost(warehouse: Warehouse) -> None:
    deliver(warehouse)
    warehouse.run("--select", "+mart_dedupe_ledger")
    found = warehouse.query(
        "select collapsed_in_warehouse, collapsed_tokens, retracted_tokens, collapsed_reported_cost_usd"
        " from marts.mart_dedupe_ledger"
    )
    assert found == [(2, 102, 0, Decimal("0.50"))]
