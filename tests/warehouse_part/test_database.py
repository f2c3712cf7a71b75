"""The warehouse is opened within a limit of memory, by commands and by Dagster.

Does not belong here: which engine it is on (tests/test_engine.py), what dbt is told (tests/dbt/test_plans.py).
"""

from pathlib import Path

import duckdb
import pytest

from pipelines.errors import UsageError
from pipelines.warehouse import database

LIMIT = "SELECT current_setting('memory_limit')"


@pytest.mark.parametrize("limit", ["512MiB", "1.5 GiB"])
def test_a_warehouse_takes_as_much_memory_as_it_may(
    limit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APIARY_WAREHOUSE", str(tmp_path / "none.duckdb"))
    from pipelines.defs.resources import WarehouseResource

    monkeypatch.setenv(database.MEMORY_LIMIT, limit)
    file = tmp_path / "apiary.duckdb"
    written = limit.replace(" ", "").replace("MiB", ".0 MiB").replace("GiB", " GiB")
    with database.connect(file) as connection:
        assert connection.execute(LIMIT).fetchall() == [(written,)]
    with database.connect(file, read_only=True) as connection:
        assert connection.execute(LIMIT).fetchall() == [(written,)]
    resource = WarehouseResource(database=str(file))
    with resource.get_connection() as connection:
        assert connection.execute(LIMIT).fetchall() == [(written,)]
    with pytest.raises(duckdb.CatalogException), resource.get_connection() as connection:
        connection.execute("FROM nothing")
    database.connect(file, read_only=True).close()  # what failed holds the file no longer


def test_it_takes_eight_gibibytes_at_most_where_nothing_is_said() -> None:
    with duckdb.connect() as connection:
        connection.execute(f"SET memory_limit = '{database.memory_limit({})}'")
        ((said,),) = connection.execute(LIMIT).fetchall()
    number, unit = said.split()
    assert float(number) * {"MiB": 1, "GiB": 1024}[unit] <= 8 * 1024
    assert database.memory_limit({database.MEMORY_LIMIT: ""}) == database.memory_limit({})


def test_a_limit_that_is_no_size_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(database.MEMORY_LIMIT, "much")
    with pytest.raises(UsageError, match="APIARY_MEMORY_LIMIT is 'much': say a size such as 6GiB"):
        database.connect(tmp_path / "apiary.duckdb")
