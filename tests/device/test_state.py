"""The state database: a step is all or nothing, and what was cut, sealed or seen is never cut, sealed or seen twice."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipelines.device.blocks import rows_in
from pipelines.device.lines import Checkpoint
from pipelines.device.state import FORGOTTEN, MEMORY, Counts, State

NOW = datetime(2026, 5, 4, tzinfo=UTC)


@pytest.fixture
def state() -> Iterator[State]:
    with closing(State(MEMORY)) as made:
        yield made


def identity(number: int) -> str:
    return f"{number:032x}"


def row(number: int, session: str = "a") -> dict[str, str]:
    return {"record_id": identity(number), "session_id": session}


def waiting(state: State, seq: int, table: str) -> list[dict[str, str]]:
    """The rows of a batch, or that no batch holds yet (0)."""
    return [row for block in state.blocks_of(seq, table) for row in rows_in(block)]


def test_a_step_that_fails_leaves_nothing(state: State) -> None:
    class BangError(Exception):
        pass

    def fail() -> None:
        with state.step():
            state.stage("llm_turns", row(1))
            state.set_checkpoint("s", Checkpoint(offset=5))
            raise BangError

    with pytest.raises(BangError):
        fail()
    assert (state.staged_rows(), state.checkpoint("s")) == (0, Checkpoint())
    with state.step():
        assert state.stage("llm_turns", row(1)), "its record must not count as seen"


def test_a_full_disk_is_reported_as_such_and_the_state_goes_on(tmp_path: Path) -> None:
    with closing(State(tmp_path / "state.db")) as state:
        state._db.execute(f"PRAGMA max_page_count = {state._db.execute('PRAGMA page_count').fetchone()[0] + 2}")

        def fill() -> None:
            with state.step():
                for number in range(10_000):
                    state.stage("llm_turns", row(number))

        with pytest.raises(sqlite3.OperationalError, match="full"):
            fill()
        assert state.staged_rows() == 0
        state._db.execute("PRAGMA max_page_count = 1000000")
        fill()
        assert state.staged_rows() == 10_000


def test_a_record_is_staged_once(state: State) -> None:
    assert state.stage("llm_turns", row(1))
    assert not state.stage("llm_turns", row(1))
    assert state.staged_rows() == 1


def test_a_record_seen_goes_on_being_seen_after_it_was_sealed(state: State) -> None:
    state.stage("llm_turns", row(1))
    seq = state.cut(10, NOW)
    assert seq == 1
    state.sealed(seq, key="k", sha256="s", objects=[], rows=1, size=1)
    assert not state.stage("llm_turns", row(1))


def test_the_earliest_session_owns_a_record_that_only_its_folder_tells(state: State) -> None:
    assert state.stage("node_steps", row(1, "session_2"), owner="session_2")
    assert not state.stage("node_steps", row(1, "session_3"), owner="session_3")
    assert waiting(state, 0, "node_steps")[0]["session_id"] == "session_2"
    assert not state.stage("node_steps", row(1, "session_1"), owner="session_1"), "a correction is no new record"
    assert waiting(state, 0, "node_steps") == [row(1, "session_1")]


def test_a_correction_of_a_row_in_a_cut_batch_waits_for_the_next(state: State) -> None:
    state.stage("node_steps", row(1, "session_2"), owner="session_2")
    state.cut(10, NOW)
    state.stage("node_steps", row(1, "session_1"), owner="session_1")
    assert waiting(state, 1, "node_steps") == [row(1, "session_2")], "a batch that was cut must stay what it was"
    assert state.cut(10, NOW) == 2
    assert waiting(state, 2, "node_steps") == [row(1, "session_1")]


def test_a_cut_takes_what_waited_longest_up_to_its_limit_and_each_once(state: State) -> None:
    for number in (5, 3, 1, 4, 2):
        state.stage("llm_turns", row(number))
    sizes = []
    while (seq := state.cut(2, NOW)) is not None:
        sizes.append([found["record_id"] for found in waiting(state, seq, "llm_turns")])
    assert sizes == [[identity(5), identity(3)], [identity(1), identity(4)], [identity(2)]]


def test_a_block_that_is_cut_in_two_stays_in_order_and_correctable(state: State) -> None:
    with state.step():
        for number in range(5):
            state.stage("node_steps", row(number, "session_2"), owner="session_2")
    assert state.cut(2, NOW) == 1
    with state.step():
        for number in (1, 3):
            state.stage("node_steps", row(number, "session_1"), owner="session_1")
    batches = [[(found["record_id"], found["session_id"]) for found in waiting(state, 1, "node_steps")]]
    while (seq := state.cut(2, NOW)) is not None:
        batches.append([(found["record_id"], found["session_id"]) for found in waiting(state, seq, "node_steps")])
    last, first = "session_2", "session_1"
    assert batches == [
        [(identity(0), last), (identity(1), last)],
        [(identity(2), last), (identity(4), last)],
        [(identity(1), first), (identity(3), first)],
    ]


def test_a_manifest_names_the_one_before_it(state: State) -> None:
    for number in (1, 2):
        state.stage("llm_turns", row(number))
        seq = state.cut(1, NOW)
        assert seq == number
        state.sealed(seq, key=f"k{seq}", sha256=f"hash{seq}", objects=[], rows=1, size=1)
    assert [state.last_manifest(seq) for seq in (1, 2, 3)] == ["", "hash1", "hash2"]


def test_identity_is_bound_at_first_sight(state: State) -> None:
    assert state.bind_session("s", "ada", is_live=False) == "ada"
    assert not state.is_live("s")
    assert state.bind_session("s", "ben", is_live=True) == "ada", "a later enrolment must not rewrite who used it"
    assert state.is_live("s")
    state.bind_session("s", "ben", is_live=False)
    assert state.is_live("s")


def test_counts_of_one_source_add_up_and_trouble_stays(state: State) -> None:
    state.count(1, "s", "l1", Counts(seen=1, rejected=1, bytes=10, outcome="corrupt"))
    state.count(1, "s", "l1", Counts(seen=2, staged=2))
    ((source, kind, counts),) = state.run_sources(1)
    assert (source, kind) == ("s", "l1")
    assert (counts.seen, counts.staged, counts.rejected, counts.bytes, counts.outcome) == (3, 2, 1, 10, "corrupt")


def test_forgetting_keeps_the_consent_book_only(state: State) -> None:
    state.add_consent("c", "granted", NOW, "include", "h")
    state.stage("llm_turns", row(1))
    state.set_checkpoint("s", Checkpoint(offset=1))
    state.forget_all()
    left = {name: state._db.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in FORGOTTEN}
    assert set(left.values()) == {0}
    assert state.last_consent() is not None
    tables = {name for (name,) in state._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert tables == {*FORGOTTEN, "consent", "consent_scope", "confirmation", "device", "outbox"}, (
        "a new table is forgotten too, or a reason is written here"
    )


def test_nobody_else_may_read_the_state(tmp_path: Path) -> None:
    with closing(State(tmp_path / "deep" / "state.db")) as state:
        state.stage("llm_turns", row(1))
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "deep").iterdir()}
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE((tmp_path / "deep").stat().st_mode) == 0o700


def test_a_deleted_row_leaves_no_bytes(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with closing(State(path)) as state:
        state.stage("llm_turns", {**row(1), "model": "heron-plover-siskin"})
        state.forget_all()
    assert b"heron-plover-siskin" not in path.read_bytes()
