"""Status, tree, workers, tasks, triggers, tools, models and agents: one small fleet, every number worked out by hand.

All on 2 March 2026. Device d1 spoke last at 13:00, d2 at 11:00, d3 at 13:00 by a clock that is ahead. What the marts
hold is read once: the tests only compare.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from math import sqrt
from pathlib import Path
from typing import Any

import pytest

from tests.warehouse import Warehouse

Row = dict[str, Any]
Marts = dict[str, list[Row]]


def at(text: str, day: int = 2) -> datetime:
    """A time of the day, UTC."""
    hour, minute, *second = map(int, text.split(":"))
    return datetime(2026, 3, day, hour, minute, *second, tzinfo=UTC)


class Fleet:
    """Rows of the wire, each with an id of its own."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, Row]] = []

    def add(self, table: str, **columns: Any) -> None:
        lineage = {"record_id": f"{table}_{len(self.rows):04}", "_device_id": "d1", "_received_at": at("13:00")}
        self.rows.append((table, lineage | columns))

    def session(self, session: str, kind: str, **columns: Any) -> None:
        given = {"evidence": "meta", "session_kind": kind, "observed_at": at("13:00")} | columns
        self.add("sessions", session_id=session, **given)

    def event(self, session: str, kind: str, when: str, **columns: Any) -> None:
        given = {"agent_role": "queen", "time_basis": "utc", "occurred_at": at(when)} | columns
        self.add("status_events", session_id=session, kind=kind, **given)

    def turn(self, session: str, when: datetime, stop: str = "tool_calls", **columns: Any) -> None:
        given = {"agent_role": "queen", "model": "m", "time_basis": "utc", "input_tokens": 60, "output_tokens": 40}
        self.add("llm_turns", session_id=session, occurred_at=when, stop_reason=stop, **(given | columns))

    def run(self, session: str, kind: str, when: datetime, **columns: Any) -> None:
        self.add("agent_runs", session_id=session, kind=kind, occurred_at=when, **({"origin": "event"} | columns))

    def task(self, list_id: str, number: str, status: str, **columns: Any) -> None:
        given = {"item": "task", "list_kind": "session", "created_at": at("10:00"), "observed_at": at("13:00")}
        self.add("tasks", list_id=list_id, task_id=number, status=status, **(given | columns))


def _queens(fleet: Fleet) -> None:
    fleet.session("q", "queen", queen_name="queen_growth", started_at=at("10:00"))
    fleet.event("q", "phase_changed", "10:00", phase="independent")
    fleet.event("q", "loop_started", "10:00", node_id="queen")
    fleet.event("q", "input_received", "10:05", node_id="queen")
    fleet.event("q", "context_updated", "10:05", context_tokens=4000, context_limit_tokens=10000)
    fleet.event("q", "slow_first_token", "10:05:30", seconds=61.0)
    fleet.turn("q", at("10:06"), model="m1")
    fleet.turn("q", at("10:07"), "stop")
    fleet.event("q", "input_received", "10:10")
    fleet.event("q", "context_updated", "10:10", context_tokens=1000, context_limit_tokens=10000)
    fleet.event("q", "doom_loop", "10:11", node_id="deep_node")
    fleet.event("q", "nudged", "10:12")
    fleet.event("q", "tool_replayed", "10:12")
    fleet.turn("q", at("10:13"), "stop")
    fleet.event("q", "phase_changed", "10:15", phase="independent")  # a restored process says it again
    fleet.event("q", "phase_changed", "10:20", phase="working")
    fleet.event("q", "input_requested", "10:20")
    fleet.task("q", "1", "completed", updated_at=at("10:40"), blocks_ids="2", blocks_count=1)
    fleet.task("q", "1", "in_progress", updated_at=at("10:10"), observed_at=at("10:12"))
    fleet.event("q", "task_updated", "10:05", task_id="1", task_status="in_progress")
    fleet.task("q", "2", "pending", updated_at=at("10:00"), blocked_by_ids="1", blocked_by_count=1)
    fleet.task("q", "3", "pending", updated_at=at("10:00"), blocked_by_ids="2,9", blocked_by_count=2)
    for number, kind in enumerate(("activated", "fired", "fired")):
        when = at(("10:00", "10:10", "10:40")[number])
        fleet.add(
            "triggers", session_id="q", trigger_id="x", kind=kind, trigger_type="timer", interval_seconds=600.0,
            occurred_at=when,
        )  # fmt: skip
    # Idle by design for three hours, and every open task waits for another.
    fleet.session("idle", "queen", queen_name="queen_legal", started_at=at("10:00"))
    fleet.event("idle", "phase_changed", "10:00", phase="independent")
    fleet.turn("idle", at("10:01"), "stop")
    fleet.task("idle", "1", "pending", blocked_by_ids="2")
    fleet.task("idle", "2", "pending", blocked_by_ids="1")
    # A stall that goes on, after three tool loops of which one is too old to count.
    fleet.session("stuck", "queen", queen_name="queen_ops", started_at=at("11:00"))
    fleet.event("stuck", "phase_changed", "11:00", phase="independent")
    fleet.event("stuck", "doom_loop", "11:05")
    fleet.turn("stuck", at("11:06"))
    for when in ("12:20", "12:30", "12:40"):
        fleet.event("stuck", "doom_loop", when)
    fleet.turn("stuck", at("12:49"))
    fleet.event("stuck", "inactive", "12:50", seconds=131.0)
    # Two runs of a graph in a queen's session; both logs tell of the first.
    fleet.session("g", "queen", queen_name="queen_growth", started_at=at("09:00"))
    fleet.add("triggers", session_id="g", trigger_id="y", kind="fired", trigger_type="webhook", occurred_at=at("09:59"))
    for kind, when in (("started", "10:00"), ("paused", "10:10"), ("resumed", "10:20"), ("resurrected", "10:25"),
                       ("completed", "10:30")):  # fmt: skip
        for origin in ("event", "runs_file"):
            fleet.run("g", kind, at(when), run_id="r1", origin=origin, correlation_id="fire-1")
    fleet.run("g", "started", at("10:40"), run_id="r2")
    fleet.run("g", "failed", at("10:45"), run_id="r2", error_class="network")
    fleet.turn("g", at("10:05"), agent_role="graph", reported_cost_usd=Decimal("0.25"))
    fleet.turn("g", at("10:42"), agent_role="graph", reported_cost_usd=None)
    fleet.event("g", "judged", "10:06", agent_role="graph", verdict="RETRY", node_id="n2")
    fleet.event("g", "judged", "10:07", agent_role="graph", verdict="ACCEPT", node_id="n2")


def _workers(fleet: Fleet) -> None:
    fleet.session("c", "colony_queen", queen_name="queen_growth", parent_session_id="q", forked_from_session_id="q",
                  started_at=at("10:25"))  # fmt: skip
    fleet.add("colonies", queen_session_id="c", colony_name="k", queen_name="queen_growth", max_concurrent_workers=2,
              observed_at=at("13:00"))  # fmt: skip
    outcomes = (("w1", "10:30", "10:40", "success"), ("w2", "10:30:10", "10:35:10", "partial"),
                ("w3", "10:30:20", "10:30:50", "failed"), ("w4", "10:50", "11:00", "timeout"),
                ("w5", "12:00", "12:01", "stopped"))  # fmt: skip
    for worker, start, end, outcome in outcomes:
        fleet.session(worker, "worker", parent_session_id="c", evidence="worker_meta", batch_size=3)
        fleet.event(worker, "loop_started", start, agent_role="worker", node_id=worker)
        fleet.turn(worker, at(start) + timedelta(seconds=10), agent_role="worker", parent_session_id="c")
        seconds = (at(end) - at(start)).total_seconds()
        tokens = 100 if outcome in ("success", "partial", "failed") else 0
        fleet.run(worker, "report", at(end), outcome=outcome, tokens_used=tokens, duration_seconds=seconds,
                  parent_session_id="c", error_class="rate_limit" if outcome == "failed" else None)  # fmt: skip
        if outcome == "failed":
            fleet.run(worker, "failed", at(end))
    # Killed: no report. Then one that is at work now, and one who never was.
    fleet.session("w6", "worker", parent_session_id="c", evidence="worker_meta")
    fleet.event("w6", "loop_started", "12:00:30", agent_role="worker")
    fleet.turn("w6", at("12:00:40"), agent_role="worker")
    fleet.event("w6", "retried", "12:00:45", agent_role="worker")
    fleet.session("w8", "worker", parent_session_id="q", evidence="worker_meta")
    fleet.event("w8", "loop_started", "12:20", agent_role="worker")
    fleet.turn("w8", at("12:21"), agent_role="worker")
    fleet.turn("w8", at("12:58"), agent_role="worker")
    fleet.run("w7", "report", at("12:02"), outcome="failed", tokens_used=0, duration_seconds=0.0, parent_session_id="c")
    # A device that stopped speaking at 11:00, and one whose clock runs ahead of the store's.
    fleet.session(
        "far", "worker", parent_session_id="gone", evidence="worker_meta", _device_id="d2", _received_at=at("11:00")
    )
    fleet.turn("far", at("10:59"), agent_role="worker", _device_id="d2", _received_at=at("11:00"))
    fleet.session("ahead", "worker", parent_session_id="q", evidence="worker_meta", _device_id="d3")
    fleet.turn("ahead", at("14:30"), agent_role="worker", _device_id="d3")
    # An agent whose file says that it waits.
    fleet.session("paused", "agent_session", agent_name="k1_agent", evidence="state", status="paused",
                  started_at=at("10:00"), updated_at=at("10:05"))  # fmt: skip
    common = {"list_kind": "progress_db", "max_retries": 3, "worker_id": "w6"}
    fleet.task("c", "77", "claimed", claimed_at=at("11:00"), observed_at=at("11:05"), retry_count=0, **common)
    fleet.task("c", "77", "pending", updated_at=at("11:20"), observed_at=at("11:25"), retry_count=1, **common)
    fleet.task("c", "77", "claimed", claimed_at=at("12:30"), updated_at=at("12:30"), retry_count=1, **common)
    for number, done in enumerate((True, False)):
        fleet.task("c", "77", "done" if done else "pending", item="step", item_id=f"s{number}", **common)
        fleet.task(
            "c", "77", "done" if done else "pending", item="checklist", item_id=f"k{number}", is_required=True, **common
        )
    fleet.task("c", "77", "pending", item="checklist", item_id="k2", is_required=False, **common)


def _tools(fleet: Fleet) -> None:
    baskets = {"t1": "AB", "t2": "AB", "t3": "ABC", "t4": "A", "t5": "D"}
    seconds = iter((4.0, 1.0, 3.0, 2.0))
    for session, tools in baskets.items():
        for tool in tools:
            fleet.add(
                "tool_calls", session_id=session, tool_name=tool, origin="event", agent_role="agent", tenant_id="tools",
                duration_seconds=next(seconds) if tool == "A" else None, is_error=(session, tool) == ("t2", "A"),
                occurred_at=at("10:00"),
            )  # fmt: skip
    for number, latency in enumerate((900, 100, 200)):
        fleet.add(
            "node_details", session_id="l2", trace_id="t", node_id="n1", source_line=number + 1, latency_ms=latency,
            exit_status="stalled" if number == 0 else "success", is_success=number > 0, attempt=number + 1,
            accept_count=1, retry_count=number, escalate_count=0, continue_count=2, total_steps=5, tenant_id="tools",
            needs_attention=number == 0, file_modified_at=at("10:00"),
        )  # fmt: skip
    for number in range(5):
        fleet.turn("m", at("10:00") + timedelta(minutes=number), "stop" if number else "cancelled", tenant_id="tools",
                   model="z" if number == 4 else "m")  # fmt: skip
    fleet.event("m", "slow_first_token", "10:01:30", tenant_id="tools", seconds=70.0)
    fleet.event("m", "slow_first_token", "10:09", tenant_id="tools", seconds=70.0)


def _going_on(fleet: Fleet) -> None:
    """Sessions that go on after an end: each is of another kind, and none is over."""
    live: Row = {"tenant_id": "live"}
    for session, runtime in (("claude", "claude_code"), ("claw", "openclaw"), ("hyper", "hyperhive")):
        status = "completed" if runtime == "openclaw" else None  # of its last run
        fleet.session(session, "agent_session", agent_runtime=runtime, status=status, **live)
        fleet.turn(session, at("08:00"), "stop", agent_role="agent", agent_runtime=runtime, **live)
    fleet.event("claude", "turn_completed", "08:00:10", agent_role="agent", **live)
    for number, when in enumerate(("07:00", "12:40")):
        for kind, seconds in (("started", 0), ("completed", 60)):
            fleet.run("hyper", kind, at(when) + timedelta(seconds=seconds), run_id=str(number),
                      agent_runtime="hyperhive", **live)  # fmt: skip
    fleet.session("asked", "queen", **live)
    fleet.event("asked", "input_requested", "10:00", **live)
    fleet.event("asked", "context_updated", "10:00:01", **live)
    fleet.event("asked", "compacted", "11:00", **live)
    for session, again, run in (("risen", "resurrected", "r"), ("again", "started", None)):
        fleet.session(session, "agent_session", **live)
        fleet.run(session, "started", at("12:00"), run_id=run, **live)
        fleet.run(session, "failed", at("12:10"), run_id=run, **live)
        fleet.run(session, again, at("12:20"), run_id=run, **live)
        fleet.turn(session, at("12:59"), agent_role="graph", **live)
    fleet.session("over", "agent_session", **live)
    fleet.run("over", "started", at("12:00"), run_id="r", **live)
    fleet.turn("over", at("12:05"), "stop", agent_role="graph", **live)
    fleet.run("over", "completed", at("12:05"), run_id="r", **live)
    for worker, when in (("w1", "10:00"), ("w2", "10:30")):
        fleet.task("again", "t", "claimed", worker_id=worker, claimed_at=at(when), updated_at=at(when),
                   list_kind="progress_db", created_at=at("09:00"), **live)  # fmt: skip
    # Its clock was set back within the run.
    fleet.session("set", "agent_session", **live)
    fleet.run("set", "started", at("12:00"), run_id="r", **live)
    fleet.run("set", "completed", at("11:30"), run_id="r", **live)


CARDS = {"legal": (12, 10), "growth": (10, 2), "ops": (3, 3)}


def _agents(fleet: Fleet) -> None:
    for name, (runs, successes) in CARDS.items():
        queen = f"queen_{name}"
        fleet.session(queen, "queen", queen_name=queen, tenant_id="bolt", started_at=at("09:00", 1))
        fleet.turn(queen, at("09:01", 1), tenant_id="bolt", model="old")
        for number in range(runs):
            worker, start = f"{name}_{number}", at("10:00", 3 + number)
            fleet.session(
                worker, "worker", parent_session_id=queen, evidence="worker_meta", tenant_id="bolt", started_at=start
            )
            fleet.turn(worker, start + timedelta(seconds=5), tenant_id="bolt", agent_role="worker",
                       reported_cost_usd=Decimal(number + 1), parent_session_id=queen,
                       _received_at=start + timedelta(minutes=5))  # fmt: skip
            fleet.add("tool_calls", session_id=worker, tool_name="browser_open", origin="event", agent_role="worker",
                      occurred_at=start + timedelta(seconds=5), tenant_id="bolt", is_error=number == 5)  # fmt: skip
            fleet.run(worker, "report", start + timedelta(seconds=60 + number), tenant_id="bolt", duration_seconds=60.0,
                      outcome="success" if number < successes else "failed", tokens_used=100)  # fmt: skip
    fleet.session("queen_legal_2", "queen", queen_name="queen_legal", tenant_id="bolt", started_at=at("09:00", 2))
    fleet.turn("queen_legal_2", at("09:01", 2), tenant_id="bolt", model="new")


@pytest.fixture(scope="session")
def marts(dbt_home: Path) -> Marts:
    """Every mart of the fleet, as rows."""
    with pytest.MonkeyPatch.context() as patch:
        path = dbt_home / "warehouse.duckdb"
        patch.setenv("APIARY_WAREHOUSE", str(path))
        warehouse = Warehouse(path, dbt_home / "target")
        fleet = Fleet()
        for fill in (_queens, _workers, _tools, _agents, _going_on):
            fill(fleet)
        for device, when, started in (("d1", "13:00", "12:59"), ("d2", "11:00", "10:59"), ("d3", "13:00", "14:31")):
            fleet.add("device_reports", _device_id=device, _received_at=at(when), started_at=at(started), user_id="ada",
                      consent_id="c", uploader_version="1.0")  # fmt: skip
        fleet.add("device_reports", started_at=at("12:59"), user_id="ada", consent_id="c", uploader_version="1.0",
                  tenant_id="live")  # fmt: skip
        warehouse.load(fleet.rows)
        warehouse.execute(
            "insert into wire.operator_actions values"
            f" ('act', 'bolt', 'worker:queen_growth', null, 'ada', 'fire', 'dumb', '{at('00:00', 8)}'),"
            f" ('odd', 'bolt', 'queen:nobody', null, 'ada', 'note', 'derailed', '{at('00:00', 8)}')"
        )
        warehouse.run("--select", *(f"+path:models/analytics/{area}" for area in ("status", "agents", "usage")))
        names = warehouse.query("select table_name from information_schema.tables where table_schema = 'marts'")
        found: Marts = {}
        for (name,) in names:
            columns = warehouse.columns(name)
            rows = warehouse.query(f"select {', '.join(columns)} from marts.{name} order by all")
            found[name] = [dict(zip(columns, row, strict=True)) for row in rows]
        return found


def one(rows: list[Row], **where: Any) -> Row:
    """The one row with these values."""
    found = [row for row in rows if all(row[name] == value for name, value in where.items())]
    assert len(found) == 1, (where, found)
    return found[0]


def some(row: Row, *names: str) -> tuple[Any, ...]:
    return tuple(row[name] for name in names)


# status --------------------------------------------------------------------------------------------------------------


def _intervals(marts: Marts, session: str, kind: str) -> list[tuple[Any, ...]]:
    rows = [r for r in marts["fct_status_intervals"] if (r["session_id"], r["interval_kind"]) == (session, kind)]
    what = "phase" if kind == "phase" else "status"
    return [some(r, what, "idle_reason", "started_at", "ended_at") for r in sorted(rows, key=lambda r: r["started_at"])]


def test_a_phase_lasts_until_another_begins(marts: Marts) -> None:
    assert _intervals(marts, "q", "phase") == [
        ("independent", None, at("10:00"), at("10:20")),
        ("working", None, at("10:20"), None),
    ]
    row = one(marts["fct_status_intervals"], session_id="q", interval_kind="phase", phase="independent")
    assert some(row, "seconds", "is_current") == (1200.0, False)
    # The phase that goes on is as long as the session was heard of in it.
    row = one(marts["fct_status_intervals"], session_id="q", interval_kind="phase", phase="working")
    heard = one(marts["mart_status_snapshot"], session_id="q")["last_event_at"]
    assert some(row, "seconds", "is_current") == ((heard - at("10:20")).total_seconds(), True)


def test_statuses_follow_one_another_without_a_gap(marts: Marts) -> None:
    assert _intervals(marts, "q", "status") == [
        ("waiting", "awaiting_input", at("10:00"), at("10:05")),
        ("working", None, at("10:05"), at("10:07")),
        ("waiting", "turn_ended", at("10:07"), at("10:10")),
        ("working", None, at("10:10"), at("10:11")),
        ("stalled", None, at("10:11"), at("10:13")),
        ("waiting", "turn_ended", at("10:13"), at("10:20")),
        ("waiting", "input_requested", at("10:20"), None),
    ]
    assert _intervals(marts, "w8", "status") == [
        ("working", None, at("12:20"), at("12:36")),
        ("silent", None, at("12:36"), at("12:58")),
        ("working", None, at("12:58"), None),
    ], "silence begins a quarter of an hour after the last sign of life"
    assert _intervals(marts, "w1", "status")[-1] == ("ended", None, at("10:40"), None)


def test_idle_is_not_stalled(marts: Marts) -> None:
    """An interval of a session without an event of trouble is never called stalled, and nothing is called dead."""
    troubled = {
        r["session_id"] for r in marts["fct_status_events"] if r["kind"] in ("stalled", "inactive", "doom_loop")
    }
    stalled = {r["session_id"] for r in marts["fct_status_intervals"] if r["status"] == "stalled"}
    assert stalled == troubled == {"q", "stuck"}
    assert some(one(marts["mart_status_snapshot"], session_id="idle"), "phase", "status", "idle_reason") == (
        "independent", "waiting", "turn_ended",
    )  # fmt: skip
    assert "dead" not in {r["status"] for r in marts["mart_status_snapshot"]}


@pytest.mark.parametrize(
    ("session", "status", "liveness", "score"),
    [
        ("q", "waiting", "alive", 15),  # one tool loop in its last hour
        ("idle", "waiting", "alive", 0),
        ("stuck", "stalled", "silent_agent", 80),  # 40 for the stall, 15 for each of two loops, 10 for the stream
        ("w8", "working", "alive", 2),  # two minutes without a sign
        ("w6", "silent_agent", "silent_agent", 40),  # 59 minutes, and no more than 40 points for them
        ("far", "silent_device", "silent_device", 0),  # nothing is known, so nothing is held against it
        ("ahead", "clock_wrong", "alive", 0),
        ("w1", "ended", None, 0),
        ("paused", "waiting", "alive", 0),
        ("g", "waiting", "alive", 0),  # its runs ended; a queen does not
        ("claude", "waiting", "alive", 0),
        ("claw", "waiting", "alive", 0),
        ("hyper", "waiting", "alive", 0),
        ("asked", "waiting", "alive", 0),
        ("risen", "working", "alive", 1),
        ("again", "working", "alive", 1),
        ("over", "ended", None, 0),
        ("set", "ended", None, 0),
    ],
)
def test_status_liveness_and_stall_score(
    marts: Marts, session: str, status: str, liveness: str | None, score: int
) -> None:
    row = one(marts["mart_status_snapshot"], session_id=session)
    assert some(row, "status", "liveness", "stall_score", "stall_score_version") == (status, liveness, score, 1)


def test_a_run_that_was_taken_up_again_has_not_ended(marts: Marts) -> None:
    found = {
        row["session_id"]: (row["state"], row["ended_at"])
        for row in marts["fct_agent_runs"]
        if row["session_id"] in ("risen", "again", "over", "set")
    }
    assert found == {
        "risen": ("running", None), "again": ("running", None), "over": ("completed", at("12:05")),
        "set": ("completed", at("11:30")),
    }  # fmt: skip
    hung = {row["session_id"] for row in marts["mart_worker_health"] if row["is_possibly_hung"]}
    assert not hung & {"claude", "claw", "hyper", "asked", "risen", "again"}


def test_a_snapshot_says_what_it_knows_and_until_when(marts: Marts) -> None:
    row = one(marts["mart_status_snapshot"], session_id="q")
    assert some(row, "phase", "active_run_id", "active_node", "current_task_id", "blocked_kind", "status_source") == (
        "working", None, "deep_node", None, "question", "event",
    )  # fmt: skip
    counts = ("open_task_count", "queue_depth", "done_task_count", "task_count", "total_workers", "in_flight_workers")
    assert some(row, *counts) == (2, 2, 1, 3, 2, 2)
    assert some(row, "context_tokens_last", "context_tokens_max", "context_limit_tokens") == (1000, 4000, 10000)
    assert some(row, "last_event_at", "known_as_of", "taken_at") == (at("10:20"), at("13:00"), at("13:00"))
    assert some(row, "silent_seconds", "uptime_seconds", "status_since") == (9600.0, 10800.0, at("10:20"))
    far = one(marts["mart_status_snapshot"], session_id="far")
    assert some(far, "known_as_of", "taken_at", "device_silent_seconds") == (at("11:00"), at("13:00"), 7200.0)
    assert one(marts["mart_status_snapshot"], session_id="idle")["blocked_kind"] == "task"
    colony = one(marts["mart_status_snapshot"], session_id="c")
    assert some(colony, "current_task_id", "open_task_count", "queue_depth", "in_flight_workers") == ("77", 1, 0, 1)
    assert one(marts["mart_status_snapshot"], session_id="w6")["active_run_id"] == "w6"
    assert one(marts["mart_status_snapshot"], session_id="paused")["status_source"] == "file"


def test_a_slow_first_token_is_the_next_turns_models(marts: Marts) -> None:
    row = one(marts["fct_status_events"], session_id="q", kind="slow_first_token")
    assert some(row, "model", "seconds") == ("m1", 61.0)


# tree and workers ----------------------------------------------------------------------------------------------------


def test_the_tree_adds_up(marts: Marts) -> None:
    tree = {r["session_id"]: r for r in marts["mart_session_tree"] if r["tenant_id"] == "acme"}
    assert some(tree["w1"], "path", "depth", "edge_kind", "root_session_id") == ("q/c/w1", 2, "worker", "q")
    assert some(tree["c"], "edge_kind", "children", "height") == ("fork", 7, 1)
    assert some(tree["far"], "is_orphan", "parent_session_id", "path") == (True, "gone", "gone/far")
    queen = tree["q"]
    assert some(queen, "children", "height", "subtree_sessions", "subtree_workers") == (3, 2, 11, 8)
    assert some(queen, "own_turns", "subtree_turns") == (3, 11), "a turn that is ahead of its arrival is held"
    outcomes = ("subtree_successes", "subtree_partials", "subtree_failures", "subtree_timeouts", "subtree_stops")
    assert some(queen, *outcomes, "subtree_open_runs", "subtree_runs") == (1, 1, 2, 1, 1, 3, 9)
    assert queen["own_active_seconds"] == 180.0
    for row in tree.values():
        children = [r for r in tree.values() if r["parent_session_id"] == row["session_id"]]
        assert row["subtree_turns"] == row["own_turns"] + sum(r["subtree_turns"] for r in children)
        assert row["children"] == len(children)


@pytest.mark.parametrize(
    ("run", "outcome", "state", "wall", "tokens", "synthesised"),
    [
        ("w1", "success", "completed", 600.0, 100, False), ("w2", "partial", "completed", 300.0, 100, False),
        ("w3", "failed", "failed", 30.0, 100, False), ("w4", "timeout", "failed", 600.0, 0, True),
        ("w5", "stopped", "killed", 60.0, 0, False), ("w6", None, "running", None, None, False),
        ("w7", "failed", "failed", None, 0, True),
    ],
)  # fmt: skip
def test_workers_end_in_five_ways_or_are_not_seen_to_end(
    marts: Marts, run: str, outcome: str | None, state: str, wall: float | None, tokens: int | None, synthesised: bool
) -> None:
    row = one(marts["fct_agent_runs"], run_key=run, tenant_id="acme")
    assert some(row, "outcome", "state", "wall_seconds", "reported_tokens") == (outcome, state, wall, tokens)
    assert some(row, "is_synthesised", "is_dispatch_fault") == (synthesised, run == "w7")
    if run != "w7":
        assert row["input_tokens"] + row["output_tokens"] == 100, "measured, whatever the report says"


def test_a_run_without_its_pauses(marts: Marts) -> None:
    row = one(marts["fct_agent_runs"], run_key="r1")
    assert some(row, "wall_seconds", "paused_seconds", "active_seconds", "pauses", "resurrections") == (
        1800.0, 600.0, 1200.0, 1, 1,
    )  # fmt: skip
    assert some(row, "outcome", "turns", "reported_cost_usd", "correlation_id") == (
        "success", 1, Decimal("0.25"), "fire-1",
    )  # fmt: skip
    assert some(row, "accepts", "retry_verdicts", "first_response_seconds") == (1, 1, 300.0)
    other = one(marts["fct_agent_runs"], run_key="r2")
    assert some(other, "outcome", "error_class", "turns", "unreported_turns", "reported_cost_usd") == (
        "failed", "network", 1, 1, None,
    )  # fmt: skip
    assert not row["is_at_resurrection_limit"]


def test_no_stall_is_longer_than_its_session(marts: Marts) -> None:
    """Up to the setting beyond the last sign of life: what a session did after that nobody knows."""
    snapshots = {(r["tenant_id"], r["session_id"]): r for r in marts["mart_status_snapshot"]}
    stalled = [r for r in marts["mart_worker_health"] if r["stalled_seconds"]]
    assert stalled
    for row in stalled:
        snapshot = snapshots[row["tenant_id"], row["session_id"]]
        alive = snapshot["uptime_seconds"] - snapshot["silent_seconds"]
        assert row["stalled_seconds"] <= max(alive, 0) + 900, row


def test_nobody_is_active_who_is_silent(marts: Marts) -> None:
    snapshots = {(r["tenant_id"], r["session_id"]): r["status"] for r in marts["mart_status_snapshot"]}
    runs = {r["session_id"]: r for r in marts["mart_agent_executions"] if r["tenant_id"] == "acme"}
    assert some(runs["w8"], "state", "is_active") == ("running", True)
    assert some(runs["w6"], "state", "is_active", "is_finished") == ("silent", False, False)
    assert some(runs["w1"], "state", "is_active", "is_finished") == ("completed", False, True)
    for run in marts["mart_agent_executions"]:
        if run["is_active"]:
            assert snapshots[run["tenant_id"], run["session_id"]] in ("working", "waiting", "stalled"), run
        assert not (run["is_active"] and run["is_finished"])


def test_a_session_has_one_kind_of_agent(marts: Marts) -> None:
    kinds = {(r["tenant_id"], r["session_id"]): r["agent_kind"] for r in marts["dim_sessions"]}
    assert {kinds["acme", session] for session in ("q", "w1", "w8")} == {"queen", "worker"}
    for mart in ("mart_status_snapshot", "mart_agent_executions"):
        assert all(kinds[r["tenant_id"], r["session_id"]] == r["agent_kind"] for r in marts[mart]), mart


def test_every_turn_of_a_worker_or_a_run_is_in_one_run(marts: Marts) -> None:
    turns = [t for t in marts["fct_llm_turns"] if t["agent_kind"] != "queen" and t["tenant_id"] in ("acme", "bolt")]
    assert sum(r["turns"] for r in marts["fct_agent_runs"] if r["tenant_id"] in ("acme", "bolt")) == len(turns)


def test_workers_spawned_together(marts: Marts) -> None:
    found = [r for r in marts["fct_fan_outs"] if r["parent_session_id"] == "c"]
    assert [some(r, "workers", "ended_workers", "successes", "is_complete") for r in found] == [
        (3, 3, 1, True), (1, 1, 0, True), (2, 1, 0, False),
    ]  # fmt: skip
    first = found[0]
    assert some(first, "fan_in_seconds", "wall_seconds", "worker_seconds", "declared_workers") == (
        550.0,
        600.0,
        930.0,
        3,
    )


def test_concurrency_hour_by_hour(marts: Marts) -> None:
    found = {r["hour_at"]: r for r in marts["agg_concurrency_hourly"] if r["scope_session_id"] == "c"}
    assert found.keys() == {at("10:00"), at("12:00")}, "a run that ends on the hour has no part in it"
    assert some(found[at("10:00")], "runs", "started_runs", "peak_runs", "run_seconds") == (4, 4, 3, 1530.0)
    assert some(found[at("12:00")], "runs", "peak_runs", "run_seconds") == (2, 2, 60.0)
    row = one(marts["mart_concurrency"], scope_session_id="c")
    assert some(row, "peak_runs", "limit_runs", "hours_over_limit", "is_over_limit", "peak_hour_at") == (
        3, 2, 1, True, at("10:00"),
    )  # fmt: skip
    tenant = one(marts["mart_concurrency"], scope="tenant", tenant_id="acme")
    assert some(tenant, "peak_runs", "limit_runs", "is_over_limit") == (3, 10, False)


def test_the_health_of_a_worker_and_of_its_colony(marts: Marts) -> None:
    w6 = one(marts["mart_worker_health"], session_id="w6")
    assert some(w6, "session_status", "outcome", "evidence_kind", "provider_retries", "is_possibly_hung") == (
        "silent_agent", None, "retried", 1, True,
    )  # fmt: skip
    assert w6["seconds_so_far"] == 3570.0
    snapshot = one(marts["mart_status_snapshot"], session_id="w6")
    assert w6["silent_seconds"] >= snapshot["silent_seconds"] > 900, "who is silent has been silent for some time"
    assert one(marts["mart_worker_health"], session_id="w8")["is_possibly_hung"] is False
    queen = one(marts["mart_worker_health"], session_id="q")
    assert some(queen, "stalled_seconds", "doom_loops", "replayed_calls", "slow_first_tokens") == (120.0, 1, 1, 1)
    stuck = one(marts["mart_worker_health"], session_id="stuck")
    # 11:05-11:06, 12:20-12:49 and from 12:50 to the device's last word at 13:00
    assert some(stuck, "stalled_seconds", "stall_events", "evidence_kind") == (60.0 + 1740.0 + 600.0, 5, "inactive")
    colony = one(marts["mart_colony_health"], colony_id="c")
    assert some(colony, "sessions", "workers", "silent_sessions", "ended_sessions", "failed_sessions") == (
        8,
        6,
        1,
        6,
        3,
    )


# tasks ---------------------------------------------------------------------------------------------------------------


def test_a_task_changes_slowly(marts: Marts) -> None:
    def history(list_id: str, task: str) -> list[tuple[Any, ...]]:
        rows = [
            r for r in marts["fct_task_changes"] if (r["list_id"], r["task_id"], r["item"]) == (list_id, task, "task")
        ]
        return [
            some(r, "state", "valid_from", "seconds", "is_reopened")
            for r in sorted(rows, key=lambda r: r["valid_from"])
        ]

    assert history("q", "1") == [
        ("open", at("10:00"), 300.0, False),
        ("working", at("10:05"), 2100.0, False),
        ("done", at("10:40"), None, False),
    ], "the event knows what the file, read later, does not"
    assert history("c", "77") == [
        ("open", at("10:00"), 3600.0, False), ("working", at("11:00"), 1200.0, False),
        ("open", at("11:20"), 4200.0, True), ("working", at("12:30"), None, False),
    ]  # fmt: skip


def test_a_task_that_another_worker_takes_over_changes(marts: Marts) -> None:
    rows = sorted(
        (row for row in marts["fct_task_changes"] if row["tenant_id"] == "live"), key=lambda row: row["valid_from"]
    )
    assert [some(row, "state", "worker_id", "is_current") for row in rows] == [
        ("open", None, False), ("working", "w1", False), ("working", "w2", True),
    ]  # fmt: skip


def test_how_far_tasks_are(marts: Marts) -> None:
    tasks = {(r["list_id"], r["task_id"]): r for r in marts["mart_task_progress"]}
    assert [tasks["q", n]["is_blocked"] for n in "123"] == [False, False, True]
    assert some(tasks["q", "3"], "open_blockers", "state") == (1, "open")
    assert some(tasks["q", "1"], "open_seconds", "working_seconds", "waiting_tasks") == (300.0, 2100.0, 1)
    claimed = tasks["c", "77"]
    assert some(claimed, "steps", "steps_done", "checks", "required_checks", "required_checks_done") == (2, 1, 3, 2, 1)
    assert some(claimed, "is_checklist_complete", "is_stale_claim", "retries", "times_reopened") == (False, True, 1, 1)
    assert not tasks["q", "2"]["is_stale_claim"]


def test_tasks_of_a_day(marts: Marts) -> None:
    queen = one(marts["agg_tasks_daily"], colony_id=None, queen_name="queen_growth")
    assert some(queen, "created_tasks", "claimed_tasks", "done_tasks", "working_p50_seconds") == (3, 1, 1, 2100.0)
    colony = one(marts["agg_tasks_daily"], colony_id="c")
    assert some(colony, "created_tasks", "claimed_tasks", "reopened_tasks", "open_p50_seconds") == (1, 2, 1, 3600.0)


# triggers, tools, models, nodes --------------------------------------------------------------------------------------


def test_a_timer_that_missed(marts: Marts) -> None:
    row = one(marts["fct_triggers"], trigger_id="x")
    assert some(row, "state", "fires", "missed_between", "next_due_at", "is_overdue") == (
        "active", 2, 2, at("10:50"), True,
    )  # fmt: skip
    assert row["missed_since"] == 14  # 10:50, 11:00, ... 13:00
    firings = [r for r in marts["fct_trigger_firings"] if r["trigger_id"] == "x"]
    assert [some(r, "fired_at", "waited_seconds", "missed_before") for r in firings] == [
        (at("10:10"), 600.0, 0),
        (at("10:40"), 1800.0, 2),
    ]
    hook = one(marts["fct_trigger_firings"], trigger_id="y")
    assert some(hook, "run_key", "missed_before") == ("r1", None)
    assert some(one(marts["fct_triggers"], trigger_id="y"), "runs_started", "is_overdue") == (1, False)


def test_durations_and_errors_of_a_tool(marts: Marts) -> None:
    row = one(marts["agg_tools_daily"], tenant_id="tools", tool_name="A")
    assert some(row, "calls", "errors", "sessions", "timed_calls", "error_share") == (4, 1, 4, 4, 0.25)
    percentiles = ("min_seconds", "p50_seconds", "p95_seconds", "p99_seconds", "max_seconds", "seconds")
    assert some(row, *percentiles) == (1.0, 2.0, 4.0, 4.0, 4.0, 10.0)
    assert some(one(marts["agg_tools_daily"], tool_name="B"), "calls", "timed_calls", "p50_seconds") == (3, 0, None)


def test_tools_used_together(marts: Marts) -> None:
    row = one(marts["agg_tool_pairs"], tenant_id="tools")  # A with C and B with C are too few
    assert some(row, "first_tool_name", "second_tool_name", "sessions", "all_sessions") == ("A", "B", 3, 5)
    measures = ("support", "first_to_second_confidence", "second_to_first_confidence", "lift")
    assert some(row, *measures) == (0.6, 0.75, 1.0, 1.25)


def test_the_mix_of_models_and_their_slow_tokens(marts: Marts) -> None:
    rows = {r["model"]: r for r in marts["agg_models_daily"] if r["tenant_id"] == "tools"}
    assert some(rows["m"], "turns", "turn_share", "slow_first_tokens", "slow_first_token_share") == (4, 0.8, 1, 0.25)
    assert some(rows["m"], "stopped_turns", "cancelled_turns", "tokens", "sessions") == (3, 1, 400, 1)
    assert some(rows["z"], "turns", "turn_share", "slow_first_tokens") == (1, 0.2, 0)
    assert some(rows["unknown"], "turns", "slow_first_tokens") == (0, 1), "no turn came after it"


def test_nodes_of_a_day(marts: Marts) -> None:
    row = one(marts["agg_nodes_daily"], node_id="n1")
    assert some(row, "exits", "successes", "stalls", "attention_exits", "repeated_exits") == (3, 2, 1, 1, 2)
    assert some(row, "accepts", "retry_verdicts", "continues", "steps") == (3, 3, 6, 15)
    latencies = ("latency_min_ms", "latency_p50_ms", "latency_p95_ms", "latency_max_ms", "latency_ms")
    assert some(row, *latencies) == (100, 200, 900, 900, 1200)
    judged = one(marts["agg_nodes_daily"], node_id="n2")
    assert some(judged, "exits", "accepts", "retry_verdicts") == (0, 1, 1)


# agents --------------------------------------------------------------------------------------------------------------


def _wilson(successes: int, runs: int) -> tuple[float, float]:
    """The ends of the interval as the roots of (p - p0)^2 = z^2 p0 (1 - p0) : n."""
    z2, share = 1.959963984540054**2, successes / runs
    a, b, c = 1 + z2 / runs, -(2 * share + z2 / runs), share**2
    root = sqrt(b * b - 4 * a * c)
    return (-b - root) / (2 * a), (-b + root) / (2 * a)


@pytest.mark.parametrize("name", CARDS)
@pytest.mark.parametrize("task_class", ["browser", "all"])
def test_a_scorecard_and_what_is_not_known(marts: Marts, name: str, task_class: str) -> None:
    runs, successes = CARDS[name]
    row = one(marts["mart_agent_scorecard"], agent_id=f"worker:queen_{name}", task_class=task_class, tenant_id="bolt")
    assert some(row, "runs", "finished_runs", "successes", "failures") == (runs, runs, successes, runs - successes)
    assert some(row, "is_ranked", "rank_in_class") == {
        "legal": (True, 1), "growth": (True, 2), "ops": (False, None),
    }[name]  # fmt: skip
    assert row["success_share"] == pytest.approx(successes / runs)
    assert (row["success_low"], row["success_high"]) == pytest.approx(_wilson(successes, runs))
    # Run n cost n; half of the successes cost no more than the middle one.
    assert row["success_p50_cost_usd"] == Decimal((successes + 1) // 2)
    assert row["reported_cost_usd"] == sum(range(1, runs + 1))
    assert row["p50_seconds"] == 55 + (runs + 1) // 2 - 1 + 0.0


def test_the_best_for_a_kind_of_work(marts: Marts) -> None:
    row = one(marts["mart_agent_routing"], tenant_id="bolt", task_class="browser")
    assert some(row, "agent_id", "next_agent_id", "agents", "ranked_agents") == (
        "worker:queen_legal", "worker:queen_growth", 3, 2,
    )  # fmt: skip
    assert some(row, "is_choice", "is_clear") == (True, True)
    assert all(r["agent_id"] is None for r in marts["mart_agent_routing"] if r["tenant_id"] == "acme")


def test_one_who_never_was_has_not_failed(marts: Marts) -> None:
    failed = sum(
        r["failures"] for r in marts["mart_agent_scorecard"] if (r["tenant_id"], r["task_class"]) == ("acme", "all")
    )
    assert failed == 2  # w3 and r2, not w7


def test_an_agent_with_another_model_is_another_version(marts: Marts) -> None:
    rows = [r for r in marts["dim_agents"] if (r["tenant_id"], r["agent_id"]) == ("bolt", "queen:queen_legal")]
    rows.sort(key=lambda row: row["version"])
    assert [some(r, "version", "model", "valid_from", "valid_to", "is_current") for r in rows] == [
        (1, "old", at("09:00", 1), at("09:00", 2), False),
        (2, "new", at("09:00", 2), None, True),
    ]
    assert {r["sessions"] for r in rows} == {2}


def test_what_is_known_before_and_after_an_action(marts: Marts) -> None:
    row = one(marts["mart_operator_actions"], action_id="act")
    # Runs began on the 3rd to the 12th, one a day. The first two succeeded, the sixth had an error of its tool.
    assert some(row, "runs_before", "successes_before", "failures_before", "tool_errors_before") == (5, 2, 3, 0)
    assert some(row, "runs_after", "successes_after", "failures_after", "tool_errors_after") == (5, 0, 5, 1)
    assert some(row, "reason", "actor_id", "is_known_agent") == ("dumb", "ada", True)
    fired = one(marts["dim_agents"], agent_id="worker:queen_growth", tenant_id="bolt")
    assert some(fired, "is_fired", "fires", "terminated_at") == (True, 1, at("00:00", 8))
    assert some(one(marts["mart_operator_actions"], action_id="odd"), "is_known_agent", "runs_before") == (False, 0)
