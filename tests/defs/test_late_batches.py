"""What arrives of somebody who was erased is refused and leaves the store in the run that refuses it.

Does not belong here: erasing (test_erasure_waits.py, tests/warehouse_part/test_erase.py).
"""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import duckdb
import pytest

from pipelines.home import Home
from pipelines.store import FolderStore, StoreRefusedError, StoreUnavailableError
from pipelines.warehouse import suppression
from tests.warehouse_part.batches import MemoryStore, batch, turn

Arrive = Callable[[], set[str]]


def of(user: str) -> Callable[[dict[str, object]], None]:
    return lambda manifest: manifest.update(user=user)


SENT = MemoryStore()
LATE = batch(SENT, {"llm_turns": [turn(1)]}, change=of("ada-lovelace"))
OTHER = batch(SENT, {"llm_turns": [turn(2)]}, seq=2, change=of("bob"))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """One whose user ada-lovelace was erased."""
    home = Home(tmp_path / "home")
    store = FolderStore(Path(home.store_url.removeprefix("file://")))
    line = suppression.record(store, scope="user", tenant="acme", subject="ada-lovelace", actor="a", reason="b")
    store.put(f"{suppression.DONE}{line.request_id}.json", b"{}")
    return home


@pytest.fixture
def arrive(home: Home, monkeypatch: pytest.MonkeyPatch) -> Arrive:
    """Puts both batches into the store and loads them; what is left in the landing."""
    monkeypatch.setenv("APIARY_WAREHOUSE", str(home.root / "none.duckdb"))
    from pipelines.defs import wire
    from pipelines.defs.resources import StoreResource, WarehouseResource

    monkeypatch.setattr(wire, "HOME", home)
    resource = StoreResource(url=home.store_url)

    def work() -> set[str]:
        store = resource.open()
        for key, data in SENT.objects.items():
            store.put(key, data)
        done = dg.materialize(
            [wire.wire],
            resources={"duckdb": WarehouseResource(database=str(home.warehouse)), "store": resource},
            partition_key=next(iter(store.list("landing/"))).received_at.date().isoformat(),
        )
        assert done.success
        return {entry.key for entry in store.list("landing/")}

    return work


def answers(home: Home) -> list[tuple[str, int]]:
    """What became of each batch, and its new rows."""
    with duckdb.connect(str(home.warehouse)) as connection:
        return connection.execute("SELECT status, rows_new FROM wire.batches ORDER BY ALL").fetchall()


def test_batches_of_an_erased_user_leave_the_store_with_the_load(home: Home, arrive: Arrive) -> None:
    """Sent by a device that does not know yet; and once more, from a copy of the landing."""
    for _ in range(2):
        left = arrive()
        assert LATE.key not in left
        assert OTHER.key in left
        assert len(left) == 2, "data and manifest of the other"
    assert answers(home) == [("loaded", 1), ("suppressed", 0)]


def test_those_of_a_request_that_waits_stay_until_it_is_carried_out(home: Home, arrive: Arrive) -> None:
    store = FolderStore(Path(home.store_url.removeprefix("file://")))
    suppression.record(store, scope="user", tenant="acme", subject="bob", actor="a", reason="b")
    left = arrive()
    assert answers(home) == [("suppressed", 0), ("suppressed", 0)]
    assert LATE.key not in left
    assert OTHER.key in left


@pytest.mark.parametrize("error", [StoreRefusedError, StoreUnavailableError])
def test_a_store_that_lets_nothing_be_deleted_stops_no_other_batch(
    home: Home,
    arrive: Arrive,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    error: type[Exception],
) -> None:
    def refuse(_store: FolderStore, key: str) -> None:
        raise error(f"403 {key}")

    monkeypatch.setattr(FolderStore, "delete", refuse)
    assert LATE.key in arrive()
    assert answers(home) == [("loaded", 1), ("suppressed", 0)]
    assert "batches of somebody who was erased stay in the store: 403" in capfd.readouterr().err


def test_a_store_that_lets_nothing_be_deleted_stops_no_later_load(
    home: Home, arrive: Arrive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The erasure stands before the load: with nothing left to erase it has nothing to wait for."""
    from pipelines.defs import erasure
    from pipelines.defs.erasure_requests import erasure_requests
    from pipelines.defs.resources import FoldersResource, StoreResource, WarehouseResource

    def refuse(_store: FolderStore, key: str) -> None:
        raise StoreRefusedError(f"403 {key}")

    monkeypatch.setattr(FolderStore, "delete", refuse)
    monkeypatch.setattr(erasure, "HOME", home)
    arrive()
    done = dg.materialize(
        [erasure_requests, erasure.erasure_receipts],
        resources={
            "duckdb": WarehouseResource(database=str(home.warehouse)),
            "store": StoreResource(url=home.store_url),
            "folders": FoldersResource(published=str(home.published), exports=str(home.exports), books=str(home.books)),
        },
        partition_key=datetime.now(UTC).date().isoformat(),
        raise_on_error=False,
    )
    assert done.success
