"""Fixtures of the billing tests.

Does not belong here: what a statement should hold (test_*.py).
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.billing.ledgers import Ledger, compiled, template
from tests.billing.months import Months


@pytest.fixture(scope="session")
def statement_models(dbt_home: Path) -> Mapping[str, str]:
    """The models of statements as SQL: dbt is asked once for each worker."""
    with pytest.MonkeyPatch.context() as patches:
        patches.setenv("APIARY_WAREHOUSE", str(dbt_home / "warehouse.duckdb"))
        return compiled(dbt_home)


@pytest.fixture(scope="session")
def empty_ledger(statement_models: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that every ledger is a copy of."""
    return template(statement_models, tmp_path_factory.mktemp("empty") / "empty.duckdb")


@pytest.fixture(scope="session")
def new_ledger(
    statement_models: Mapping[str, str], empty_ledger: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], Ledger]:
    """Makes empty ledgers, each in a folder of its own."""
    return lambda: Ledger(statement_models, empty_ledger, tmp_path_factory.mktemp("ledger"))


@pytest.fixture
def ledger(new_ledger: Callable[[], Ledger]) -> Ledger:
    """An empty ledger."""
    return new_ledger()


@pytest.fixture
def months(statement_models: Mapping[str, str], tmp_path: Path) -> Months:
    """Account `a` without any usage yet."""
    return Months(statement_models, tmp_path)
