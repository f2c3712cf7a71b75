"""The identity of records: two turns of one clock tick are two, a copy is one, and no word is found again in a hash."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import sqlite3
import tempfile
from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.contract.keys import record_id
from pipelines.contract.wire import BY_NAME, contract_hash
from pipelines.device import collect, enrolment, migrations
from pipelines.device.consent import Consent
from pipelines.device.readers.hive import events
from pipelines.device.redact import Redactor
from pipelines.device.state import MEMORY, State
from tests.device.driving import (
    LATER,
    SESSION,
    Device,
    append,
    dump,
    event,
    flat_folder,
    granted,
    queen_folder,
    row_by_row,
    step,
    tool,
)

Json = dict[str, Any]
NOW = datetime(2026, 6, 1, tzinfo=UTC)
KEYS = (bytes(32), bytes(range(32)))
NAMED = ("nightly acme run", "exec_acme_0a1b2c3d", "0a" * 16)
EXECUTIONS = (SESSION, LATER, *NAMED)
STREAMS = ("default", "queen", "acme nightly", "acme weekly")
NODES = ("left", "right", "queen", None)
TICKS = ("2026-05-04T10:15:30.015625", "2026-05-04T10:15:30")


def turn(
    execution: str | None = SESSION, stream: str = "default", node: str | None = "left", tick: str = TICKS[0], *,
    iteration: int = 0, tokens: int = 1_000, **data: Any,
) -> Json:  # fmt: skip
    used = {"input_tokens": tokens, "output_tokens": tokens // 10, "iteration": iteration, "stop_reason": "stop"}
    line = event("llm_turn_complete", {**used, "model": "gpt-5.5", **data}, at=tick, session=execution, stream=stream)
    return line | {"node_id": node}


def enrolled(device_id: str = "d" * 32) -> enrolment.Enrolment:
    return enrolment.Enrolment(
        tenant="acme", user="ada", region="eu", device_id=device_id, timezone="UTC", store="file:///store",
        enrolled_at=NOW,
    )  # fmt: skip


def read(state: State, home: Path, *, key: bytes = KEYS[0]) -> dict[str, Json]:
    """One pass over a home; every turn and step that waits to leave, by its identity."""
    consent = Consent("0" * 32, "granted", NOW, "include", contract_hash())
    with tempfile.TemporaryDirectory() as scratch:
        collect.Collector(state, enrolled(), Redactor(key), consent, now=NOW, scratch=Path(scratch) / "copy").run(
            [home]
        )
    waiting = state.waiting_rows()
    return {row["record_id"]: row for table in ("llm_turns", "node_steps") for row in waiting.get(table, [])}


def tokens(rows: dict[str, Json]) -> tuple[int, int]:
    return len(rows), sum(row["input_tokens"] for row in rows.values())


# Two turns in one clock tick -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("others", [{"tokens": 3_000}, {}], ids=["different tokens", "equal tokens"])
def test_two_nodes_that_end_in_one_tick_are_two_turns(tmp_path: Path, others: Json) -> None:
    left, right = turn(node="left"), turn(node="right", **others)
    log = append(queen_folder(tmp_path) / "events.jsonl", dump(left, right, left, right))
    append(queen_folder(tmp_path, LATER) / "events.jsonl", log.read_bytes())
    with closing(State(MEMORY)) as state:
        rows = read(state, tmp_path)
    assert tokens(rows) == (2, 1_000 + others.get("tokens", 1_000))
    assert record_id("acme", "llm_turns", SESSION, "default", TICKS[0], 0) in rows, "the first keeps its identity"
    assert {row["identity_version"] for row in rows.values()} == {None}


@pytest.mark.parametrize("execution", [SESSION, "nightly acme run"])
def test_what_happens_to_two_nodes_in_one_tick_is_two_events(tmp_path: Path, execution: str) -> None:
    """Also where the name of the run makes the identity a keyed one; a copy of the lines adds nothing."""
    verdicts = [
        event("judge_verdict", {"action": "RETRY", "iteration": 0}, at=TICKS[0], session=execution) | {"node_id": node}
        for node in ("left", "right", "left")
    ]
    log = append(queen_folder(tmp_path) / "events.jsonl", dump(*verdicts))
    append(queen_folder(tmp_path, LATER) / "events.jsonl", log.read_bytes())
    with closing(State(MEMORY)) as state:
        read(state, tmp_path)
        found = state.waiting_rows()["status_events"]
    assert len({row["record_id"] for row in found}) == len({row["node_id"] for row in found}) == 2


def test_retries_of_nodes_in_one_tick_are_turns_of_their_own(tmp_path: Path) -> None:
    """A node that ends, is tried again and ends, all before the clock moves on, used the tokens of both."""
    tried = [turn(node=node, tokens=count) for count in (1_000, 1_500) for node in ("left", "right")]
    log = append(queen_folder(tmp_path) / "events.jsonl", dump(*tried))
    append(queen_folder(tmp_path, LATER) / "events.jsonl", log.read_bytes())
    with closing(State(MEMORY)) as state:
        assert tokens(read(state, tmp_path)) == (4, 5_000)
        log.unlink()
        append(log, dump(*tried, tried[0]))
        assert tokens(read(state, tmp_path)) == (4, 5_000)


@pytest.mark.parametrize(
    "spans",
    [("0" * 15 + "1", "0" * 15 + "2"), ("the acme span", "another"), ("a" * 16, "b" * 16)],
    ids=["digits only", "words", "generated"],
)
def test_a_step_that_was_written_twice_counts_once_whatever_its_span_looks_like(
    tmp_path: Path, spans: tuple[str, str]
) -> None:
    """A failed write is repeated: the line stands twice, or behind its own torn start. Two equal steps are two."""
    one, other = (dump(step(1, span_id=span)) for span in spans)
    log = append(flat_folder(tmp_path) / "logs" / "tool_logs.jsonl", one + one + other + other[:70] + other)
    append(flat_folder(tmp_path, LATER) / "logs" / "tool_logs.jsonl", log.read_bytes())
    for _ in range(2):
        with closing(State(MEMORY)) as state:
            assert tokens(read(state, tmp_path)) == (2, 2 * 201)


def test_a_state_that_told_turns_apart_by_names_finds_the_retries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, path = tmp_path / "home", tmp_path / "state.db"
    tried = [turn(node=node, tokens=count) for count in (1_000, 1_500) for node in ("left", "right")]
    append(queen_folder(home) / "events.jsonl", dump(*tried))
    with monkeypatch.context() as patch:
        variant_of = State.variant_of
        patch.setattr(State, "variant_of", lambda self, names: variant_of(self, names[:-2]))
        with closing(State(path)) as state:
            sent = read(state, home)
            assert tokens(sent) == (2, 2_000)
    with closing(sqlite3.connect(path)) as db, db:
        row_by_row(db)
        db.execute("PRAGMA user_version = 3")
    append(queen_folder(home, LATER) / "events.jsonl", dump(*tried))
    with closing(State(path)) as state:
        rows = read(state, home)
        assert tokens(rows) == (4, 5_000)
        assert sent.items() <= rows.items(), "what was sent keeps its identity and is not sent again"


def test_the_second_of_two_is_told_apart_after_a_pass_a_kill_and_a_rewrite(tmp_path: Path) -> None:
    home, log = tmp_path / "home", queen_folder(tmp_path / "home") / "events.jsonl"
    append(log, dump(turn(node="left")))
    with closing(State(tmp_path / "state.db")) as state:
        read(state, home)
    append(log, dump(turn(node="right")))
    with closing(State(tmp_path / "state.db")) as state:
        rows = read(state, home)
        assert len(rows) == 2
        text = log.read_text("utf-8")
        log.unlink()
        log.write_text(text.replace(", ", ",").replace(": ", ":"), "utf-8")
        assert read(state, home) == rows
    with closing(State(MEMORY)) as state:
        assert read(state, home).keys() == rows.keys(), "a state that was lost finds the same identities again"


turns = st.builds(
    turn, st.sampled_from(EXECUTIONS), st.sampled_from(STREAMS), st.sampled_from(NODES), st.sampled_from(TICKS),
    iteration=st.integers(0, 1), tokens=st.sampled_from([0, 10, 1_000]),
)  # fmt: skip


def told_by(line: Json) -> tuple[object, ...]:
    """What tells one turn from another: copies agree in all of it."""
    data = line["data"]
    names = (line["execution_id"], line["stream_id"], line["node_id"])
    return (*names, line["timestamp"], data["iteration"], data["input_tokens"])


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(
    lines=st.lists(turns, max_size=14, unique_by=told_by),
    cuts=st.lists(st.integers(0, 14), max_size=3),
    forks=st.lists(st.integers(0, 14), max_size=2),
    rewritten=st.booleans(),
)
def test_every_turn_counts_once_however_its_log_is_read(
    lines: list[Json], cuts: list[int], forks: list[int], rewritten: bool
) -> None:
    """The invented ledger is the list of turns. Passes end anywhere, forks copy any beginning, a log is rewritten."""
    expected = (len(lines), sum(line["data"]["input_tokens"] for line in lines))
    with tempfile.TemporaryDirectory() as folder, closing(State(MEMORY)) as state:
        home = Path(folder)
        log = queen_folder(home) / "events.jsonl"
        begin = 0
        for end in [*sorted(cuts), len(lines)]:
            append(log, dump(*lines[begin:end]))
            begin = max(begin, end)
            read(state, home)
        if rewritten:
            log.unlink()
            append(log, dump(*lines))
        for number, end in enumerate(forks):
            append(queen_folder(home, f"session_20260505_00000{number}_0000000a") / "events.jsonl", dump(*lines[:end]))
        rows = read(state, home)
        assert tokens(rows) == expected
        for key in KEYS:
            with closing(State(MEMORY)) as fresh:
                again = read(fresh, home, key=key)
            assert again.keys() == rows.keys(), "another device, with another key, gives the same identities"
            assert {i: row["input_tokens"] for i, row in again.items()} == {
                i: row["input_tokens"] for i, row in rows.items()
            }


# What the first release sent -----------------------------------------------------------------------------------------


def first_release(lines: Iterable[Json], path: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """A state of the first release that has read and sent these turns."""
    ids = {
        record_id("acme", "llm_turns", line["execution_id"], line["stream_id"], line["timestamp"],
                  line["data"]["iteration"]): None for line in lines
    }  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "MIGRATIONS", migrations.MIGRATIONS[:1])
        with closing(State(path)) as state:
            state._db.executemany("INSERT INTO seen VALUES (?, NULL)", [(bytes.fromhex(i),) for i in ids])
            state._db.execute("PRAGMA user_version = 0")
    return set(ids)


def test_what_was_sent_keeps_its_identity_and_what_was_lost_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [turn(*parts) for parts in itertools.product(EXECUTIONS, STREAMS, ("left", "right"))]
    home = tmp_path / "home"
    append(queen_folder(home) / "events.jsonl", dump(*lines))
    sent = first_release(lines, tmp_path / "state.db", monkeypatch)
    assert len(sent) == len(lines) / 2, "of two nodes one was taken for a copy"
    with closing(State(tmp_path / "state.db")) as state:
        rows = read(state, home)
        assert len(rows) == len(lines) / 2, "the others are sent now, and nothing twice"
        assert not sent & rows.keys()
        append(queen_folder(home, LATER) / "events.jsonl", dump(*lines))
        assert read(state, home) == rows


# Devices without a common key ----------------------------------------------------------------------------------------


def named_home(home: Path) -> None:
    """Turns and steps of which everything that can be a name is one, and copies of all of it."""
    log = append(queen_folder(home) / "events.jsonl", dump(*(
        turn(execution, stream, node, iteration=number)
        for number, (execution, stream, node) in enumerate(itertools.product((*EXECUTIONS, None), STREAMS, NODES))
    )))  # fmt: skip
    append(queen_folder(home, LATER) / "events.jsonl", log.read_bytes())
    for session in (SESSION, "acme nightly", "beta nightly"):
        lines = [step(number, span=False, span_id=span) for number, span in enumerate((None, "", "acme", "0a" * 8))]
        append(flat_folder(home, session) / "logs" / "tool_logs.jsonl", dump(*lines, lines[0]))


def test_tokens_are_counted_once_where_devices_have_no_common_key(tmp_path: Path) -> None:
    named_home(tmp_path)
    found = []
    for key in KEYS:
        with closing(State(MEMORY)) as state:
            found.append(read(state, tmp_path, key=key))
    (first, second) = found
    assert first.keys() == second.keys()
    assert tokens(first) == tokens(second)
    assert len(first) > 100
    assert {row["session_id"] for row in first.values()} != {row["session_id"] for row in second.values()}, (
        "else both devices have the same key"
    )


# Found again with a list of words ------------------------------------------------------------------------------------

SYLLABLES = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]


def word_list(size: int) -> list[str]:
    """Words as a dictionary has them."""
    rng = random.Random(11)
    words: dict[str, None] = {}
    while len(words) < size:
        words["".join(rng.choice(SYLLABLES) for _ in range(rng.choice((2, 3, 4))))] = None
    return [*words]


POSITIONS = ("stream_id", "node_id", "execution_id", "timestamp", "correlation_id", "colony_id", "run_id")
DATA = {
    "model": "m", "stop_reason": "stop", "iteration": 1, "input_tokens": 5, "output_tokens": 5, "tool_name": "t",
    "tool_use_id": "toolu_0123456789ab", "phase": "p", "action": "a", "reason": "r", "error": "e", "worker_id": SESSION,
    "status": "s", "trigger_id": "t", "trigger_type": "t", "queen_session_id": SESSION, "colony_name": "c",
    "task_id": 1,
}  # fmt: skip


def plant(home: Path, words: list[str]) -> None:
    """A home with a word in every name and text: one position a line, and all of them."""
    following = itertools.cycle(words)
    numbers = itertools.count()
    log = queen_folder(home) / "events.jsonl"
    lines: list[Json] = []
    while len(lines) < len(words):
        for kind in events.WANTED:
            for position in (*POSITIONS, *DATA, None):
                line = event(kind, dict(DATA), at=f"2026-05-04T10:15:30.{next(numbers):06}")
                if position is None:
                    lines.append(line | {name: next(following) for name in POSITIONS[:3]})
                elif position in DATA:
                    lines.append(line | {"data": DATA | {position: next(following)}})
                else:
                    lines.append(line | {position: next(following)})
    append(log, dump(*lines))
    for number in range(120):
        name = next(following)
        folder = flat_folder(home, name)
        calls = [tool(tool_use_id=next(following), tool_name=next(following))]
        for span in ({"span_id": next(following)}, {}):
            line = step(number, span=False, llm_text=next(following), node_id=next(following), tool_calls=calls, **span)
            append(folder / "logs" / "tool_logs.jsonl", dump(line))
            append(folder / "logs" / "details.jsonl", dump(line | {"success": True}))
        (folder / "logs" / "summary.json").write_text(json.dumps({"agent_id": next(following), "status": "success"}))
        run = {"run_id": next(following), "event": "run_failed", "timestamp": "2026-05-04T10:00:00"}
        append(folder / "runs.jsonl", dump(run))
        (folder / "meta.json").write_text(json.dumps({"queen_id": next(following), "forked_from": next(following)}))
        task = {"id": number, "owner": f"{next(following)}@example.com", "status": next(following)}
        (folder / "tasks.json").write_text(json.dumps({"tasks": [task, {"id": next(following)}]}))
        colony = home / "colonies" / next(following)
        colony.mkdir(parents=True, exist_ok=True)
        (colony / "metadata.json").write_text(json.dumps({"queen_name": next(following)}))


def shipped(made: Device) -> tuple[list[Json], set[str]]:
    """What an attacker has: every row, and every hexadecimal value in any column."""
    rows = made.delivered(newest=False)
    return rows, {
        part
        for row in rows
        for value in row.values()
        if isinstance(value, str)
        for part in (value, value.removeprefix("k1_"))
    }


def content_hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def guesses(home: Path, words: set[str]) -> dict[str, str]:
    """The plain hashes of all natural keys of this home that hold a word, by the documented rules, which the attacker
    knows: whoever tries every word in every place comes upon these words there, and upon no others."""
    found: dict[str, str] = {}
    words = words | {content_hash(line) for line in lines_of(home)} | {f"{word}@example.com" for word in words}

    def guess(table: str, *parts: object) -> None:
        if not words.isdisjoint(map(str, parts)):
            found[record_id("acme", table, *parts)] = f"{table}: {parts}"

    for log in home.rglob("events.jsonl"):
        for line in map(json.loads, log.read_text("utf-8").splitlines()):
            data, base = line["data"], (line["execution_id"], line["stream_id"], line["timestamp"])
            for table in ("agent_runs", "status_events", "triggers", "tool_calls", "llm_turns"):
                for last in ("iteration", "tool_use_id", "trigger_id", "worker_id", "task_id"):
                    guess(table, line["type"], *base, data[last])
                    guess(table, *base, data[last])
                    guess(table, *base, data[last], line["node_id"])
                    guess(table, *base, line["node_id"], data[last])
                guess(table, line["type"], *base, data["iteration"], data["task_id"])
            guess("sessions", "event", data["queen_session_id"], line["timestamp"])
    for session in (home / "sessions").iterdir():
        for kind, name in (("step", "tool_logs.jsonl"), ("detail", "details.jsonl")):
            path = session / "logs" / name
            for number, line in enumerate(map(json.loads, path.read_text().splitlines()) if path.exists() else (), 1):
                for table in ("node_steps", "node_details", "tool_calls"):
                    for key in ((kind, line.get("span_id")), (kind, session.name, number, content_hash(line))):
                        guess(table, *key)
                        guess(table, *key, 0)
        tasks = json.loads((session / "tasks.json").read_text())["tasks"] if (session / "tasks.json").exists() else ()
        for task in tasks:
            guess("tasks:thing", "session", session.name, task["id"])
        for kind in ("other", "queen", "agent_session"):
            guess("sessions:thing", kind, session.name)
        for path in session.rglob("summary.json"):
            guess("run_summaries", session.name, None, content_hash(json.loads(path.read_text())))
        for path in session.rglob("runs.jsonl"):
            for line in map(json.loads, path.read_text().splitlines()):
                guess("agent_runs", "runs", line["run_id"], line["event"], line["timestamp"])
    return found


def lines_of(home: Path) -> Iterable[Json]:
    for path in (*home.rglob("logs/*.json"), *home.rglob("logs/*.jsonl")):
        yield from map(json.loads, path.read_text("utf-8").splitlines())


def test_no_word_of_ten_thousand_is_found_again(tmp_path: Path) -> None:
    home, words = tmp_path / "hive", word_list(10_000)
    plant(home, words)
    made = granted(tmp_path / "apiary", home)
    made.ship(home)
    rows, values = shipped(made)
    assert len({row["_table"] for row in rows}) >= 10
    assert len(rows) > 9_000
    public = {value for table in BY_NAME.values() for column in table.columns for value in column.values}
    assert values & set(words) - public == set()
    assert [text for value, text in guesses(home, set(words)).items() if value in values] == []
    digests = (hashlib.new(name, word.encode()).hexdigest() for word in words for name in ("sha256", "md5", "sha1"))
    assert values & {digest[:length] for digest in digests for length in (16, 32, 64)} == set()


def test_the_attack_finds_the_words_where_hashes_are_plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the first release's rule: else the test above could not fail."""
    home, words = tmp_path / "hive", word_list(300)
    plant(home, words)
    monkeypatch.setattr("pipelines.device.redact.is_fixed_form", lambda part: True)
    monkeypatch.setattr("pipelines.device.collect.is_fixed_form", lambda part: True)
    made = granted(tmp_path / "apiary", home)
    made.ship(home)
    _, values = shipped(made)
    tables = {text.partition(":")[0] for value, text in guesses(home, set(words)).items() if value in values}
    assert tables >= {"llm_turns", "tool_calls", "agent_runs", "status_events", "triggers", "node_steps"}
