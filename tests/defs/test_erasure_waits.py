"""What stands before an erasure: on a DuckLake none is begun and people are told why, elsewhere books are read anew.

Does not belong here: erasing (tests/end_to_end/test_erasure.py), the command's refusal (tests/test_engine.py).
"""

from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import duckdb
import pytest

from pipelines.home import Home
from pipelines.store import open_store
from pipelines.warehouse import erase, suppression


def test_a_request_waits_on_a_ducklake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APIARY_WAREHOUSE", str(tmp_path / "none.duckdb"))
    from pipelines.defs import erasure
    from pipelines.defs.erasure_requests import erasure_requests
    from pipelines.defs.resources import FoldersResource, StoreResource, WarehouseResource

    monkeypatch.setenv("APIARY_ENGINE", "ducklake")
    home = Home(tmp_path / "home")
    store = open_store(home.store_url)
    shipped = "landing/v1/eu/acme/an-object"
    store.put(shipped, b"hers")
    line = suppression.record(store, scope="tenant", tenant="acme", subject="acme", actor="a", reason="b")
    folders = FoldersResource(published=str(home.published), exports=str(home.exports), books=str(home.books))
    done = dg.materialize(
        [erasure_requests, erasure.erasure_receipts],
        resources={
            "duckdb": WarehouseResource(database=str(home.warehouse)),
            "store": StoreResource(url=home.store_url),
            "folders": folders,
        },
        partition_key=datetime.now(UTC).date().isoformat(),
    )
    assert done.success, "the load goes on"
    (check,) = done.get_asset_check_evaluations()
    assert (check.check_name, check.passed, check.severity) == (erasure.FINISHED, False, dg.AssetCheckSeverity.WARN)
    assert check.metadata[line.request_id].value == erasure.NOT_ON_DUCKLAKE
    assert erase.waiting(home.warehouse)[line.request_id]["reason"] == erasure.NOT_ON_DUCKLAKE
    assert [left.request_id for left in suppression.pending(store, suppression.load(store))] == [line.request_id]
    assert store.get(shipped) == b"hers", "half an erasure is none"


def test_books_are_read_before_an_erasure_and_a_broken_one_stops_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("APIARY_WAREHOUSE", str(tmp_path / "none.duckdb"))
    from pipelines.defs import erasure

    folder, warehouse = tmp_path / "billing", tmp_path / "apiary.duckdb"
    folder.mkdir()
    header = "seat_id,billing_account_id,user_id,valid_from,valid_to,recorded_at,recorded_by,approved_by\n"
    seat = header + "s,a,{},2026-01-01,,2026-01-01T00:00:00Z,,\n"

    def seats(text: str) -> list[str]:
        (folder / "seats.csv").write_text(text)
        erasure._read_books(dg.build_asset_context(), warehouse, folder)
        with duckdb.connect(str(warehouse)) as connection:
            return [user for (user,) in connection.execute("SELECT user_id FROM billing.seats").fetchall()]

    assert seats(seat.format("ada")) == ["ada"]
    assert seats(seat.format("grace")) == ["grace"]
    assert seats("seat_id,nonsense\n1,2\n") == ["grace"]
    assert "the books stay as they were read last" in capfd.readouterr().err
