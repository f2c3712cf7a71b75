"""Comparing two engines can fail.

Does not belong here: what they say (test_marts.py).
"""

from pathlib import Path

import duckdb

from bench.scale.compare import compare


def test_a_difference_is_found(tmp_path: Path):
    """Comparing can fail: one amount a digit off, a row too many, a row that is missing, a column of another type."""
    path = tmp_path / "warehouse.duckdb"
    rows = (
        "(values ('a', 1.00000000000000000001::decimal(38, 20), 0.1::double), ('b', 2, 0.2)) as t (id, cost, seconds)"
    )
    with duckdb.connect(str(path)) as connection:
        connection.execute("create schema marts")
        for mart in ("same", "digit", "more", "fewer", "type", "absent", "last_digits"):
            connection.execute(f"create table marts.{mart} as select * from {rows}")
        for mart, query in {
            "same": "select * from marts.same",
            "digit": "select id, cost + 0.00000000000000000001::decimal(38, 20) as cost, seconds from marts.digit",
            "more": "from marts.more union all from marts.more where id = 'a'",
            "fewer": "from marts.fewer where id = 'a'",
            "type": "select id, cost::double as cost, seconds from marts.type",
            "last_digits": "select id, cost, seconds * (1 + 1e-15) as seconds from marts.last_digits",
        }.items():
            (tmp_path / mart).mkdir()
            connection.execute(f"copy ({query}) to '{tmp_path / mart / 'rows.parquet'}' (format parquet)")
    by_name = {mart.mart: mart for mart in compare(path, tmp_path)}
    assert {name for name, mart in by_name.items() if mart.is_equal} == {"same", "last_digits"}
    assert (by_name["digit"].missing, by_name["digit"].surplus, by_name["digit"].columns) == (2, 2, ("cost",))
    assert (by_name["more"].missing, by_name["more"].surplus) == (0, 1)
    assert (by_name["fewer"].missing, by_name["fewer"].surplus) == (1, 0)
    assert by_name["type"].columns == ("cost",)
    assert not by_name["absent"].is_there
    assert by_name["last_digits"].rounded == 2
