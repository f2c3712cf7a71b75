"""Which run has what happened in a session that several runs share."""

import random
from datetime import datetime, timedelta

import pytest

from tests.dbt.test_activity import Fleet, at
from tests.warehouse import Warehouse

START = at("08:00")
SESSIONS = 60
MINUTES = 40  # few enough that starts, ends, turns and events often share an instant


def _fleet(seed: int) -> Fleet:
    """Sessions of up to eight runs, some of which go on for ever or end before they began, and of up to thirty turns
    and verdicts, some of which are their queen's."""
    rng = random.Random(seed)
    fleet = Fleet()

    def instant() -> datetime:
        return START + timedelta(minutes=rng.randrange(MINUTES))

    for number in range(SESSIONS):
        session = f"s{number}"
        fleet.session(session, rng.choice(["agent_session", "queen"]), started_at=START)
        for run in range(rng.randint(1, 8)):
            begun = None if rng.random() < 0.2 else instant()
            origin = {"run_id": f"{session} r{run}", "origin": "event"}
            fleet.add("agent_runs", session_id=session, kind="started", occurred_at=begun, **origin)
            if rng.random() < 0.6:
                fleet.add("agent_runs", session_id=session, kind="completed", occurred_at=instant(), **origin)
        for _ in range(rng.randint(0, 30)):
            role = rng.choice(["queen", "worker", "worker"])
            fleet.turn(session, instant(), agent_role=role)
            verdict = {"kind": "verdict", "verdict": "ACCEPT", "agent_role": role, "time_basis": "utc"}
            fleet.add("status_events", session_id=session, occurred_at=instant(), **verdict)
    return fleet


@pytest.mark.parametrize("seed", range(3))
def test_what_happened_is_in_the_run_that_began_last_of_those_that_went_on(warehouse: Warehouse, seed: int) -> None:
    warehouse.load(_fleet(seed).rows)
    warehouse.run("--select", "+fct_agent_runs")
    runs = warehouse.query(
        "select session_id, run_key, started_at, ended_at, turns, accepts, count(*) over (partition by session_id)"
        " from marts.fct_agent_runs"
    )
    kinds = dict(warehouse.query("select session_id, session_kind from core.int_sessions__observations_merged"))
    expected = {(session, key): [0, 0] for session, key, *_ in runs}
    happened = [
        (place, row)
        for place, what in enumerate(("fct_llm_turns", "fct_status_events"))
        for row in warehouse.query(f"select session_id, occurred_at, agent_kind from marts.{what}")
    ]
    for place, (session, instant, agent_kind) in happened:
        own = [run for run in runs if run[0] == session]
        if len(own) == 1 and kinds[session] not in (None, "queen", "colony_queen"):
            expected[session, own[0][1]][place] += 1
            continue
        going_on = [
            (start, key)
            for _, key, start, end, *_ in own
            if start is not None and start < instant and (end is None or instant <= end)
        ]
        if agent_kind != "queen" and going_on:
            expected[session, max(going_on)[1]][place] += 1
    assert {(session, key): [turns, accepts] for session, key, _, _, turns, accepts, _ in runs} == expected
    assert sum(turns for turns, _ in expected.values()) > 100
    assert any(len({start for s, _, start, *_ in runs if s == session}) < count for session, *_, count in runs), "ties"
