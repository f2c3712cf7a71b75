"""Which L3 steps give way to events: invented runs whose logs lost lines, against the ledger they were invented from.

Does not belong here: what the turns add up to elsewhere (test_usage.py), arrival in parts (test_incremental.py).
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.warehouse import Warehouse

START = datetime(2026, 3, 1, 9, tzinfo=UTC)
Record = tuple[str, dict[str, Any]]
RETRACTED = ("same_turn", "other_tokens", "died")


@dataclass(frozen=True)
class Turn:
    """One turn of a run as it truly happened, and which log has it."""

    run: int
    node: str
    step_index: int
    position: int
    tokens: tuple[int, int]
    ended_at: datetime
    seconds: int
    has_tool: bool
    in_events: bool
    in_steps: bool


@dataclass(frozen=True)
class Session:
    """The turns of a session, and how far its events' clock is off."""

    turns: tuple[Turn, ...]
    hours_off: float

    def rows(self, name: str = "s") -> list[Record]:
        """What the device sent."""
        rows: list[Record] = []
        for number, turn in enumerate(self.turns):
            tokens = {"input_tokens": turn.tokens[0], "output_tokens": turn.tokens[1]}
            if turn.in_events:
                rows.append(("llm_turns", tokens | {
                    "record_id": f"e{name}.{number}", "session_id": name, "agent_role": "graph", "node_id": turn.node,
                    "iteration": turn.position,
                    "occurred_at": turn.ended_at + timedelta(hours=self.hours_off),
                }))  # fmt: skip
            if turn.in_steps:
                started = turn.ended_at - timedelta(seconds=turn.seconds / 2)
                rows.append(("node_steps", tokens | {
                    "record_id": f"s{name}.{number}", "session_id": name, "trace_id": f"run{turn.run}",
                    "node_id": turn.node, "step_index": turn.step_index, "source_line": number + 1,
                    "latency_ms": turn.seconds * 1000, "tool_started_at": started if turn.has_tool else None,
                    "file_modified_at": self.turns[-1].ended_at + timedelta(minutes=1),
                }))  # fmt: skip
        return rows


@st.composite
def sessions(draw: st.DrawFn) -> Session:
    """Runs one after the other; some tokens occur again and again. Where a run has events, two turns of it, and one of
    each node that is run again, are whole and dated and have tokens of their own: the evidence that tells the rest."""
    turns: list[Turn] = []
    clock = START
    runs = draw(st.integers(1, 3))
    for run in range(runs):
        clock += timedelta(minutes=draw(st.sampled_from([2, 45, 60 * 24 * 19])))
        era = draw(st.sampled_from(["whole", "steps only", "broke", "patchy"]))
        index, position = 0, draw(st.sampled_from([0, 5]))
        for number in range(draw(st.integers(2, 6))):
            is_again = number > 2 and era != "broke" and draw(st.integers(0, 3)) == 0
            if is_again:  # the node is run again: its steps begin at 0, its iterations may go on
                index, position = 0, position if draw(st.booleans()) else 0
            seconds = draw(st.integers(2, 120))
            clock += timedelta(seconds=seconds)
            is_anchor = number < 2 or is_again
            kept = (True, True)
            if era == "patchy" and not is_anchor:
                kept = draw(st.sampled_from([(True, True), (True, False), (False, True)]))
            elif era == "steps only":
                kept = (False, True)
            elif era == "broke":
                kept = (number < 2, True)
            tokens = (500, 50) if not is_anchor and draw(st.booleans()) else (1000 * len(turns) + 10 * run + 1, 7)
            node = "sort" if index == 0 else turns[-1].node
            has_tool = is_anchor or draw(st.booleans())
            turns.append(Turn(run, node, index, position, tokens, clock, seconds, has_tool, *kept))
            index, position = index + 1, position + 1
            clock += timedelta(seconds=draw(st.sampled_from([0, 1, 30])))
    return Session(tuple(turns), draw(st.sampled_from([0, 0, 0, -6, 5.75, 9])))


class Matcher:
    """The compiled model over the wire's tables, without dbt: a build for each example would take seconds. The tests of
    this module share one, and nothing else in the warehouse."""

    def __init__(self, warehouse: Warehouse) -> None:
        self.warehouse = warehouse
        warehouse.run("--select", "+int_usage__steps_matched")
        models = ("stg_wire__fork_ancestors", "int_usage__steps_matched")
        warehouse.execute("drop table core.int_usage__steps_matched")  # compiled as a first build is
        compiled = warehouse.dbt("compile", "--select", *models)
        code = {result.node.name: result.node.compiled_code for result in compiled.result or []}
        self.ancestors, self.matched = (code[name] for name in models)

    def __call__(self, rows: list[Record]) -> dict[str, tuple[str, str | None]]:
        """Rule and event of each step."""
        for table in ("llm_turns", "node_steps", "run_summaries", "sessions", "touched_sessions", "row_counts"):
            self.warehouse.execute(f"delete from wire.{table}")
        self.warehouse.load(rows)
        with self.warehouse.connect() as connection:
            connection.execute(f"create or replace table staging.stg_wire__fork_ancestors as {self.ancestors}")
            found = connection.execute(f"select step_id, match_rule, turn_id from ({self.matched})").fetchall()
        return {step: (rule, turn) for step, rule, turn in found}


@pytest.fixture(scope="module")
def matcher(dbt_home: Path) -> Iterator[Matcher]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("APIARY_WAREHOUSE", str(dbt_home / "warehouse.duckdb"))
        yield Matcher(Warehouse(dbt_home / "warehouse.duckdb", dbt_home / "target"))


@settings(max_examples=5, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(invented=st.lists(sessions(), min_size=10, max_size=20))
def test_every_turn_counts_once_whichever_log_has_it(matcher: Matcher, invented: list[Session]) -> None:
    assert_counted_once(matcher, invented)


@pytest.mark.long
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(invented=st.lists(sessions(), min_size=1, max_size=16))
def test_every_turn_counts_once_at_length(matcher: Matcher, invented: list[Session]) -> None:
    assert_counted_once(matcher, invented)


def assert_counted_once(matcher: Matcher, invented: list[Session]) -> None:
    found = matcher([row for number, session in enumerate(invented) for row in session.rows(str(number))])
    given_way = {step for step, (rule, _) in found.items() if rule in RETRACTED}
    for name, session in enumerate(invented):
        counted = Counter(turn.tokens for turn in session.turns if turn.in_events) + Counter(
            turn.tokens
            for number, turn in enumerate(session.turns)
            if turn.in_steps and f"s{name}.{number}" not in given_way
        )
        assert counted == Counter(turn.tokens for turn in session.turns)
    taken = Counter(turn for _, turn in found.values() if turn)
    assert max(taken.values(), default=1) == 1


def event(number: int, minute: float, tokens: tuple[int, int] = (100, 10), **more: Any) -> Record:
    return (
        "llm_turns",
        {"record_id": f"e{number}", "session_id": "s", "agent_role": "graph", "node_id": "sort", "iteration": number,
         "occurred_at": START + timedelta(minutes=minute), "input_tokens": tokens[0], "output_tokens": tokens[1]}
        | more,
    )  # fmt: skip


def step(number: int, minute: float | None, tokens: tuple[int, int] = (100, 10), **more: Any) -> Record:
    """A step whose tool started at a minute and that took ten seconds, or one without a tool."""
    started = None if minute is None else START + timedelta(minutes=minute)
    return (
        "node_steps",
        {"record_id": f"s{number}", "session_id": "s", "trace_id": "run", "node_id": "sort", "step_index": number,
         "source_line": number + 1, "input_tokens": tokens[0], "output_tokens": tokens[1], "latency_ms": 10_000,
         "tool_started_at": started} | more,
    )  # fmt: skip


def forked(session: str, parent: str) -> Record:
    return (
        "sessions",
        {"record_id": f"fork {session}", "session_id": session, "forked_from_session_id": parent, "evidence": "meta",
         "observed_at": START},
    )  # fmt: skip


CASES: dict[str, tuple[list[Record], dict[str, tuple[str, str | None]]]] = {
    "a session without events": ([step(0, 1)], {"s0": ("alone", None)}),
    "events of another session": ([step(0, 1), event(0, 1, session_id="t")], {"s0": ("alone", None)}),
    "a compaction is no turn": ([step(0, 1), step(-1, 1), event(0, 1)], {"s0": ("same_turn", "e0")}),
    "the log broke": (
        [step(0, 1), step(1, 2), step(2, 3), event(0, 1), event(1, 2)],
        {"s0": ("same_turn", "e0"), "s1": ("same_turn", "e1"), "s2": ("unmatched", None)},
    ),
    "the same tokens in a run of an earlier day": (
        [step(0, 1), step(7, 60 * 24, trace_id="later", step_index=0), event(0, 60 * 24)],
        {"s0": ("unmatched", None), "s7": ("same_turn", "e0")},
    ),
    "an event of a run whose steps are lost": ([step(0, 1), event(0, 60 * 24)], {"s0": ("unmatched", None)}),
    "tokens differ, all else agrees": (
        [step(0, 1), step(1, 2, (200, 20)), event(0, 1), event(1, 2, (203, 20))],
        {"s0": ("same_turn", "e0"), "s1": ("other_tokens", "e1")},
    ),
    "tokens differ between two turns that agree, without a clock": (
        [step(0, 1), step(1, None, (200, 20)), step(2, 3, (7, 7)), event(0, 1), event(1, 2, (203, 20)),
         event(2, 3, (7, 7))],
        {"s0": ("same_turn", "e0"), "s1": ("other_tokens", "e1"), "s2": ("same_turn", "e2")},
    ),
    "tokens and iteration differ": (
        [step(0, 1), step(1, 2, (200, 20)), event(0, 1), event(2, 2, (203, 20))],
        {"s0": ("same_turn", "e0"), "s1": ("unmatched", None)},
    ),
    "the iteration differs, and the event was written while the step's tool ran": (
        [step(0, 1, (1, 1)), step(1, 2, (2, 2)), step(2, 3), event(0, 1, (1, 1)), event(1, 2, (2, 2)), event(9, 3.1)],
        {"s0": ("same_turn", "e0"), "s1": ("same_turn", "e1"), "s2": ("same_turn", "e9")},
    ),
    "the iteration differs, and the event was written after the step had ended": (
        [step(0, 1, (1, 1)), step(1, 2, (2, 2)), step(2, 3), event(0, 1, (1, 1)), event(1, 2, (2, 2)), event(9, 3.5)],
        {"s0": ("same_turn", "e0"), "s1": ("same_turn", "e1"), "s2": ("unmatched", None)},
    ),
    "a node of a fan-out that no event tells": (
        [step(0, 1), step(1, 2), step(2, 2, (7, 7), step_index=1, node_id="right"), event(0, 1), event(1, 2)],
        {"s0": ("same_turn", "e0"), "s1": ("same_turn", "e1"), "s2": ("unmatched", None)},
    ),
    "each log lost one node of a fan-out": (
        [step(0, 1), step(1, 2, node_id="right"), step(2, 3, node_id="right"), event(0, 1), event(1, 2),
         event(2, 3, node_id="right")],
        {"s0": ("same_turn", "e0"), "s1": ("unmatched", None), "s2": ("same_turn", "e2")},
    ),
    "two devices key the names of nodes under two keys": (
        [step(0, 1, node_id="k1_a"), step(1, 2, node_id="k1_a"), event(0, 1, node_id="k1_b")],
        {"s0": ("same_turn", "e0"), "s1": ("unmatched", None)},
    ),
    "long waits between turns, one of them dated": (
        [step(0, None), step(1, None, (200, 20)), step(2, 60, (7, 7)), event(0, 1), event(1, 30, (200, 20)),
         event(2, 60, (7, 7))],
        {"s0": ("same_turn", "e0"), "s1": ("same_turn", "e1"), "s2": ("same_turn", "e2")},
    ),
    "a node is run again in one run": (
        [step(0, 1), step(1, 2, (200, 20)), step(2, 3, (7, 7), step_index=0), step(3, 4, (8, 8), step_index=1),
         step(4, 5, (9, 9), step_index=2), *(event(n, n + 1, tokens) for n, tokens in
                                            enumerate([(100, 10), (200, 20), (7, 7), (8, 8), (9, 9)]))],
        {f"s{n}": ("same_turn", f"e{n}") for n in range(5)},
    ),
    "restored: the iterations are counted on": (
        [step(0, 1), step(1, 2), event(5, 1), event(6, 2)],
        {"s0": ("same_turn", "e5"), "s1": ("same_turn", "e6")},
    ),
    "a step that died and was tried again": (
        [step(0, None, (0, 0), is_partial=True), step(1, 1, step_index=0), event(0, 1)],
        {"s0": ("died", None), "s1": ("same_turn", "e0")},
    ),
    "a cancelled turn of no tokens": (
        [step(0, 1), step(1, None, (0, 0), is_partial=True), event(0, 1), event(1, 2, (0, 0), stop_reason="cancelled")],
        {"s0": ("same_turn", "e0"), "s1": ("same_turn", "e1")},
    ),
    "a queen's turns have the tokens of a graph's steps": (
        [step(n, None, (n + 1, 1), node_id="graph") for n in range(3)]
        + [event(n, n, (n + 1, 1), node_id="queen", agent_role="queen") for n in range(2)]
        + [event(2, 9, occurred_at=None, node_id="queen", agent_role="queen", input_tokens=3, output_tokens=1)],
        {f"s{n}": ("alone", None) for n in range(3)},
    ),
    "a queen that writes steps": (
        [step(0, 1, node_id="queen"), event(0, 1, node_id="queen", agent_role="queen")],
        {"s0": ("same_turn", "e0")},
    ),
    "the event has no clock": ([step(0, 1), event(0, 0, occurred_at=None)], {"s0": ("same_turn", "e0")}),
    "the steps have no clock": (
        [step(0, None), step(1, None, (200, 20)), event(0, 1)],
        {"s0": ("same_turn", "e0"), "s1": ("unmatched", None)},
    ),
    "a fork holds the only copy of its parent's steps": (
        [step(0, 1, session_id="fork"), step(1, 2, session_id="fork"), event(0, 1, session_id="parent"),
         event(1, 2, session_id="fork"), forked("fork", "between"), forked("between", "parent")],
        {"s0": ("same_turn", "e0"), "s1": ("same_turn", "e1")},
    ),
    "forks that name one another": (
        [step(0, 1, session_id="a"), event(0, 1, session_id="b"), forked("a", "b"), forked("b", "a")],
        {"s0": ("same_turn", "e0")},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_step_gives_way_to_the_event_of_its_own_turn(matcher: Matcher, case: str) -> None:
    rows, expected = CASES[case]
    assert matcher(rows) == expected
