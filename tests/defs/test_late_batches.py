"""What arrives of somebody who was erased is refused and leaves the store in the run that refuses it.

Does not belong here: erasing (test_erasure_waits.py, tests/warehouse_part/test_erase.py).
"""

from pathlib import Path

import dagster as dg
import duckdb
import pytest

from pipelines.home import Home
from pipelines.store import open_store
from pipelines.warehouse import suppression
from tests.warehouse_part.batches import MemoryStore, batch, turn


def test_batches_of_an_erased_user_leave_the_store_with_the_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sent by a device that does not know yet; and once more, from a copy of the landing."""
    monkeypatch.setenv("APIARY_WAREHOUSE", str(tmp_path / "none.duckdb"))
    from pipelines.defs import wire
    from pipelines.defs.resources import StoreResource, WarehouseResource

    home = Home(tmp_path / "home")
    monkeypatch.setattr(wire, "HOME", home)
    sent, store = MemoryStore(), open_store(home.store_url)
    late = batch(sent, {"llm_turns": [turn(1)]}, change=lambda manifest: manifest.update(user="ada-lovelace"))
    other = batch(sent, {"llm_turns": [turn(2)]}, seq=2, change=lambda manifest: manifest.update(user="bob"))
    line = suppression.record(store, scope="user", tenant="acme", subject="ada-lovelace", actor="a", reason="b")
    store.put(f"{suppression.DONE}{line.request_id}.json", b"{}")
    for _ in range(2):
        for key, data in sent.objects.items():
            store.put(key, data)
        done = dg.materialize(
            [wire.wire],
            resources={
                "duckdb": WarehouseResource(database=str(home.warehouse)),
                "store": StoreResource(url=home.store_url),
            },
            partition_key=next(store.list("landing/")).received_at.date().isoformat(),
        )
        assert done.success
        left = {entry.key for entry in store.list("landing/")}
        assert late.key not in left
        assert other.key in left
        assert len(left) == 2, "data and manifest of the other"
    with duckdb.connect(str(home.warehouse)) as connection:
        found = connection.execute("SELECT status, count(*) FROM wire.batches GROUP BY ALL ORDER BY ALL").fetchall()
    assert found == [("loaded", 1), ("suppressed", 1)]
