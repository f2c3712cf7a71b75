"""Turns of the future are held until somebody has looked at them: in no total and on no bill, and not forgotten."""

from datetime import timedelta
from typing import Any

import pytest

from pipelines.warehouse import held, load
from pipelines.warehouse.held import NotBuiltError
from tests.warehouse import RECEIVED, Warehouse


def built(warehouse: Warehouse) -> None:
    warehouse.run("--select", "+fct_llm_turns", "+mart_held_turns")
    assert warehouse.dbt("test", "--select", "assert_every_turn_of_the_wire_counts_once").success


def turn(number: int, *, late: timedelta, **columns: Any) -> tuple[str, dict[str, Any]]:
    return "llm_turns", {
        "record_id": f"turn_{number}", "session_id": "s", "agent_role": "queen", "input_tokens": 10, "output_tokens": 1,
        "time_basis": "utc", "occurred_at": RECEIVED + late, "_received_at": RECEIVED, **columns,
    }  # fmt: skip


def test_turns_of_the_future_are_held_until_released(warehouse: Warehouse) -> None:
    """Test 54: held, not billed; released, they count on the day that they claim."""
    minutes = (0, 10, 11, 3 * 366 * 24 * 60)
    rows = [turn(n, late=timedelta(minutes=m)) for n, m in enumerate(minutes)]
    step = {
        "record_id": "step", "session_id": "l", "step_index": 0, "source_line": 1, "input_tokens": 7,
        "output_tokens": 8,
        "tool_started_at": RECEIVED + timedelta(hours=1), "_received_at": RECEIVED,
    }  # fmt: skip
    with warehouse.connect() as connection, pytest.raises(NotBuiltError):
        held.listed(connection)
    warehouse.load([*rows, ("node_steps", step)])
    built(warehouse)
    turns = "select turn_id, usage_date from marts.fct_llm_turns order by turn_id"
    assert [row[0] for row in warehouse.query(turns)] == ["turn_0", "turn_1"]
    assert warehouse.query("select turn_id, turn_source from marts.mart_held_turns order by 1") == [
        ("step", "step"), ("turn_2", "event"), ("turn_3", "event")
    ]  # fmt: skip
    with warehouse.connect() as connection:
        load.prepare(connection)
        connection.execute("INSERT INTO wire.batches (manifest_key, ingest_seq) VALUES ('m', 1)")
        assert [(row.session_id, row.turns, row.tokens) for row in held.listed(connection)] == [
            ("l", 1, 15),
            ("s", 2, 22),
        ]
        assert held.release(connection, tenant="acme", session="s") == 2
        assert held.release(connection, tenant="bolt") == 0
    built(warehouse)
    assert [row[0] for row in warehouse.query(turns)] == ["turn_0", "turn_1", "turn_2", "turn_3"]
    assert warehouse.query(turns)[3][1] == (RECEIVED + timedelta(minutes=minutes[3])).date()
    assert warehouse.query("select turn_id from marts.mart_held_turns") == [("step",)]
    warehouse.loads = 2  # the numbers after the release
    warehouse.load([turn(9, late=timedelta(0))])
    built(warehouse)
    assert len(warehouse.query(turns)) == 5, "a load after a release is seen too"


def test_latencies_that_lead_out_of_the_calendar_date_no_step(warehouse: Warehouse) -> None:
    """A year each is a latency that may be sent; a day before 1970 is one that no reader of a day expects."""
    year = 366 * 86_400_000
    steps = [
        {
            "record_id": f"step_{number:03}", "session_id": "l", "trace_id": "run", "step_index": number,
            "source_line": number + 1, "input_tokens": 7, "output_tokens": 8, "latency_ms": year,
            "tool_started_at": RECEIVED if number == 60 else None, "_received_at": RECEIVED,
        }
        for number in range(240)
    ]  # fmt: skip
    warehouse.load([("node_steps", step) for step in steps])
    built(warehouse)
    dated = warehouse.query(
        "select step_id, year(occurred_at), time_basis from core.int_usage__step_turns order by step_id"
    )
    years = [year for _, year, _ in dated]
    assert len(years) == 240
    assert (min(years), max(years)) == (1970, 2199)
    assert dated[0] == ("step_000", 1970, "run_interpolated")
    assert dated[239] == ("step_239", 2199, "run_interpolated")
