"""Fixtures of more than one folder of tests.

Does not belong here: fixtures of one folder.
"""

import gc
import os
import shutil
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pipelines.home import Home, private_folder
from tests.warehouse import Warehouse

# Set in the workers of pytest-xdist: with it the program wraps its lines as for a terminal.
os.environ.pop("COLUMNS", None)
# dbt makes and drops objects by the million: looking for circles at every 700 of them takes a tenth of the time.
gc.set_threshold(100_000, 50, 100)


@pytest.fixture(scope="session", autouse=True)
def one_thread_of_duckdb() -> Iterator[None]:
    """DuckDB runs in one thread: each core has a worker of pytest. Programs that tests start have all of them."""
    connect = duckdb.connect

    def with_one_thread(
        database: str = ":memory:", read_only: bool = False, config: dict[str, Any] | None = None
    ) -> duckdb.DuckDBPyConnection:
        return connect(database, read_only=read_only, config={"threads": 1} | (config or {}))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duckdb, "connect", with_one_thread)
        yield


@pytest.fixture(scope="session")
def dbt_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for each test worker, with one warehouse that is emptied for each test."""
    return tmp_path_factory.mktemp("dbt")


@pytest.fixture
def warehouse(dbt_home: Path, monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    """An empty warehouse with the wire's tables."""
    path = dbt_home / "warehouse.duckdb"
    monkeypatch.setenv("APIARY_WAREHOUSE", str(path))
    return Warehouse(path, dbt_home / "target")


@pytest.fixture(scope="session")
def published_home(dbt_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home with a publication: the tree of tests/dbt/test_usage.py as tenant `tree`, and again, ten times as large,
    as tenant `bolt`."""
    from pipelines.billing import books
    from pipelines.warehouse import publish
    from tests import marts
    from tests.dbt.test_usage import TREE, at

    home = Home(tmp_path_factory.mktemp("served"))
    rows = []
    for tenant, factor in (("tree", 1), ("bolt", 10)):
        for table, columns in TREE:
            row = columns | {"tenant_id": tenant}
            for name in ("input_tokens", "output_tokens"):
                if name in row:
                    row[name] = columns[name] * factor
            rows.append((table, row))
    rows.append(
        ("sessions", {"record_id": "q", "tenant_id": "tree", "session_id": "queen", "evidence": "meta",
                      "session_kind": "queen", "queen_name": "queen_technology", "observed_at": at(60)})
    )  # fmt: skip
    budget = {
        "budget_id": "b", "tenant_id": "tree", "scope": "tenant", "scope_id": None, "period": "month",
        "measure": "tokens", "limit_amount": Decimal(10), "warn_at": Decimal("0.5"), "valid_from": date(2026, 1, 1),
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("APIARY_WAREHOUSE", str(dbt_home / "warehouse.duckdb"))
        warehouse = Warehouse(dbt_home / "warehouse.duckdb", dbt_home / "target")
        warehouse.enter(books.BUDGETS, [budget, budget | {"budget_id": "c", "tenant_id": "bolt"}])
        warehouse.load(rows)
        warehouse.run()
        with warehouse.connect() as connection:
            publish.publish(connection, home.published, descriptions=marts.descriptions())
            connection.execute("CHECKPOINT")
        private_folder(home.warehouse.parent)
        shutil.copy(warehouse.path, home.warehouse)
    return home
