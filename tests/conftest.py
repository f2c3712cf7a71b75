"""Fixtures of more than one folder of tests.

Does not belong here: fixtures of one folder.
"""

from pathlib import Path

import pytest

from tests.warehouse import Warehouse


@pytest.fixture(scope="session")
def dbt_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for each test worker: one path of the warehouse means one parse."""
    return tmp_path_factory.mktemp("dbt")


@pytest.fixture
def warehouse(dbt_home: Path, monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    """An empty warehouse with the wire's tables."""
    path = dbt_home / "warehouse.duckdb"
    monkeypatch.setenv("APIARY_WAREHOUSE", str(path))
    return Warehouse(path, dbt_home / "target")
