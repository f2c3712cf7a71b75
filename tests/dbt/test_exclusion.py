"""The marts after a device was taken out of the wire, built by what changed, are those of a build from nothing.

Does not belong here: the wire (tests/warehouse_part/test_exclusion.py).
"""

from datetime import timedelta
from typing import Any

import pytest

from pipelines.store import FolderStore
from pipelines.warehouse import exclusion, quarantine, registry
from tests.warehouse import Warehouse
from tests.warehouse_part.batches import CLONE, LAPTOP, START, MemoryStore, batch, record, row, turn

pytestmark = pytest.mark.services

SELECTED = (
    "+agg_usage_session_daily", "+agg_usage_tenant_daily", "+fct_rated_lines", "+mart_unknown_records",
    "+int_delivery__device_days", "+agg_concurrency_hourly",
)  # fmt: skip


def filled(store: FolderStore) -> None:
    """Two devices with common and own sessions on several days, and another tenant."""
    memory = MemoryStore()
    for minute, (device, tenant) in enumerate(((LAPTOP, "acme"), (CLONE, "acme"), (LAPTOP, "bolt"))):
        tables: dict[str, list[dict[str, Any]]] = {
            "llm_turns": [],
            "source_files": [],
            "agent_runs": [],
            "sessions": [],
        }
        for day in range(3):
            for number in (day, 10 + day + minute):
                at = START + timedelta(days=-day, minutes=number)
                session = record(f"session {number}")
                tables["llm_turns"].append(turn(number, session_id=session, occurred_at=at, output_tokens=7))
                tables["agent_runs"].append(
                    row("agent_runs", number, session_id=session, kind="started", occurred_at=at)
                )
                tables["sessions"].append(row("sessions", number, session_id=session, observed_at=at))
            run = {"run": 10 * minute + day, "observed_at": START - timedelta(days=day)}
            tables["source_files"].append(row("source_files", f"{minute} {day}", **run))
        batch(memory, tables, device=device, tenant=tenant, minute=60 * 24 + minute)
    for key, data in memory.objects.items():
        store.put(key, data)


def test_marts_follow_a_device_out_and_back(warehouse: Warehouse, tmp_path: Any) -> None:
    store = FolderStore(tmp_path)
    filled(store)
    warehouse.ingest(store.url)
    warehouse.run("--select", *SELECTED)
    whole = warehouse.marts()

    out = registry.Register(devices={CLONE: registry.Entry(expelled_at=START.isoformat())}).refusal
    with warehouse.connect() as connection:
        done = exclusion.exclude(connection, store, exclusion.refused(connection, out), admission=out)
    assert (done.batches, done.reloaded) == (1, 1)
    warehouse.run("--select", *SELECTED)
    by_what_changed = warehouse.marts()
    for mart in ("agg_usage_session_daily", "fct_rated_lines", "mart_unknown_records"):
        of_others = [[row for row in marts[mart] if "bolt" in row] for marts in (whole, by_what_changed)]
        assert of_others[0] == of_others[1] != [], mart
        assert whole[mart] != by_what_changed[mart], mart
    warehouse.run("--full-refresh", "--select", *SELECTED)
    assert by_what_changed == warehouse.marts()

    with warehouse.connect() as connection:
        quarantine.replay(connection, store, quarantine.Choice())
    warehouse.run("--select", *SELECTED)
    assert warehouse.marts() == whole
