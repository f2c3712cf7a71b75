"""The register of devices: who is listed. Does not belong here: whose batches are refused (test_gate.py)."""

from pathlib import Path

import duckdb

from pipelines.warehouse import load, registry
from tests.warehouse_part.batches import LAPTOP, MemoryStore, batch, turn


def test_devices_are_listed_while_somebody_else_reads_the_warehouse(tmp_path: Path) -> None:
    file, store = tmp_path / "apiary.duckdb", MemoryStore()
    with duckdb.connect(str(file)) as connection:
        load.prepare(connection)
        load.load(connection, store, [batch(store, {"llm_turns": [turn(1)]})])
    with duckdb.connect(str(file), read_only=True):
        assert [row["device"] for row in registry.listed(tmp_path, file)] == [LAPTOP]
