"""A device whose rows make a model fail is set aside in the same run, and everybody else is published.

The rows are put behind the gate's back: what gets past it and makes a model fail is not known beforehand.
Does not belong here: finding batches (tests/warehouse_part/test_isolation.py).
"""

import json
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pipelines.home import Home
from pipelines.store import FolderStore
from tests.end_to_end.driving import apiary
from tests.warehouse_part.batches import CLONE, LAPTOP, MemoryStore, batch, record, row, turn

POISON = {
    "a model of the bill": "UPDATE wire.llm_turns SET output_tokens = -1 WHERE output_tokens = 1000",
    "a model of analytics": "INSERT INTO wire.tool_calls SELECT * FROM wire.tool_calls WHERE duration_seconds = 1000",
}


def published(home: Path) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(Home(home).published / "current" / "marts.duckdb"), read_only=True) as connection:
        return connection.execute(
            "SELECT * FROM marts.agg_usage_session_daily WHERE tenant_id = 'acme' ORDER BY ALL"
        ).fetchall()


@pytest.mark.long  # three runs, and the builds that tell whose rows they are
@pytest.mark.parametrize("poison", POISON.values(), ids=POISON)
def test_the_others_are_published_in_the_same_run(tmp_path: Path, poison: str) -> None:
    memory, home = MemoryStore(), tmp_path / "home"
    for seq in (1, 2):
        for number, (tenant, device) in enumerate((("acme", LAPTOP), ("evil", LAPTOP), ("evil", CLONE))):
            tokens = 1000 if (tenant, device, seq) == ("evil", CLONE, 2) else 7
            session = record(f"{tenant} {device}")
            rows = [turn(f"{number} {seq} {n}", session_id=session, output_tokens=tokens) for n in range(3)]
            call = row("tool_calls", f"{number} {seq}", session_id=session, duration_seconds=float(tokens))
            batch(memory, {"llm_turns": rows, "tool_calls": [call]}, tenant=tenant, device=device, seq=seq)
    store = FolderStore(tmp_path / "store")
    for key, data in memory.objects.items():
        store.put(key, data)
    run = ("run", "--store", store.url)
    apiary(home, *run)
    honest = published(home)
    assert honest

    with duckdb.connect(str(Home(home).warehouse)) as connection:
        connection.execute(poison)
        connection.execute(
            "INSERT INTO wire.touched_sessions SELECT tenant_id, session_id, 99 FROM wire.touched_sessions"
        )
    done = apiary(home, *run)
    assert f"1 batch of device {CLONE}, tenant evil" in done.stderr
    assert "apiary quarantine replay --reason failed_" in done.stderr, "and how it comes back"
    assert published(home) == honest
    listed = json.loads(apiary(home, "quarantine", "list", "--json").stdout)
    assert [(row["device_id"], row["seq"]) for row in listed] == [(CLONE, 2)]

    (reason,) = {row["reason"] for row in listed}
    apiary(home, "quarantine", "replay", "--reason", reason, "--store", store.url)
    assert json.loads(apiary(home, "quarantine", "list", "--json").stdout) == []
    with duckdb.connect(str(Home(home).warehouse), read_only=True) as connection:
        turns = connection.execute("SELECT count(*) FROM wire.llm_turns WHERE tenant_id = 'evil'").fetchone()
    assert turns == (12,), "once each"
