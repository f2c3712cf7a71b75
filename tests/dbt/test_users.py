"""One session on two users' devices, as an exported and imported colony puts it there: whose it is, by evidence."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipelines.billing import agreements, books
from pipelines.warehouse import book_changes
from tests.device.driving import append, dump, queen_folder, turn
from tests.end_to_end.driving import device, send
from tests.warehouse import Warehouse

SESSION = "session_20261120_100000_0a1b2c3d"  # by the clock of Berlin; its meta.json says 09:00 UTC
CREATED_AT = 1_795_165_200.0
MARTS = ("fct_llm_turns", "dim_sessions", "agg_usage_session_daily", "exc_billing_exceptions")
ZONES = {"zoned": {"ada": "Europe/Berlin", "bob": "America/New_York"}, "fought": {"ada": "UTC", "bob": "UTC"}}


def counted(warehouse: Warehouse, root: Path, order: tuple[str, str]) -> dict[str, list[tuple[Any, ...]]]:
    """Rows of marts after the stores of both users were loaded in an order. Devices are enrolled anew each time."""
    warehouse.reset()
    for user in order:
        store = (root / f"store-{user}").as_uri()
        for tenant, zones in ZONES.items():
            home = root / "homes" / f"{tenant}-{user}"
            log = queen_folder(home, SESSION)
            append(log / "events.jsonl", dump(turn(1, session=SESSION, at="2026-11-20T10:05:00.5")))
            (log / "meta.json").write_text(json.dumps({"created_at": CREATED_AT, "queen_id": "queen_technology"}))
            made = device(
                root / "devices" / f"{tenant}-{user}", store=store, tenant=tenant, user=user, zone=zones[user]
            )
            send(made, home)
        warehouse.ingest(store)
        warehouse.run("--select", *(f"+{mart}" for mart in MARTS))
    return {
        mart: warehouse.query(f"select {', '.join(warehouse.columns(mart))} from marts.{mart} order by all")
        for mart in MARTS
    }


def users(warehouse: Warehouse) -> list[tuple[Any, ...]]:
    return warehouse.query("select tenant_id, user_id, user_basis from marts.dim_sessions order by all")


@pytest.mark.services
def test_neither_arrival_nor_a_random_id_decides_whose_a_session_is(warehouse: Warehouse, tmp_path: Path) -> None:
    first = counted(warehouse, tmp_path / "first", ("ada", "bob"))
    shutil.rmtree(tmp_path / "first")
    assert counted(warehouse, tmp_path / "second", ("bob", "ada")) == first
    assert users(warehouse) == [("fought", "UNATTRIBUTED", "conflict"), ("zoned", "ada", "zone")]
    kinds = "select tenant_id, turns from marts.exc_billing_exceptions where exception_kind = 'user_conflict'"
    assert warehouse.query(kinds) == [("fought", 1)]

    folder = tmp_path / "books"
    signature = agreements.Signature("carl", "dora", agreements.now())
    agreements.decide_user([books.SHIPPED, folder], signature, tenant="fought", session=SESSION, user="bob")
    decided = {
        book.name: books.read(book, [books.SHIPPED, folder]) for book in (books.CACHE_CONVENTIONS, books.SESSION_USERS)
    }
    with warehouse.connect() as connection:
        assert book_changes.touch(connection, decided) == ["session_users"]
    warehouse.sign(folder)
    warehouse.run("--select", *(f"+{mart}" for mart in MARTS))
    assert users(warehouse) == [("fought", "bob", "decided"), ("zoned", "ada", "zone")]
    assert warehouse.query(kinds) == []
    used = "select user_id, sum(turns)::bigint from marts.agg_usage_session_daily where tenant_id = 'fought' group by 1"
    assert warehouse.query(used) == [("bob", 1)]
