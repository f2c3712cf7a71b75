"""Marts of two engines, row by row: every column, decimals to their last digit.

Numbers of type DOUBLE are seconds and shares, never money. A sum of them depends on the order in which it is added up,
on one engine as well: of two rows that differ in nothing else they may be a part in 10^9 apart, and are counted so.

Does not belong here: making them.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import duckdb

PRECISION = 1e-9
# They count builds: a mart that was brought up to date has others than one that was built at once.
BUILD_COUNTERS = ("_rating_seq", "_booking_seq")


@dataclass(frozen=True)
class Comparison:
    """A mart as both engines have it.

    `missing`: rows of DuckDB that the other lacks; `surplus`: rows of its own; `rounded`: rows that are the same but
    for the last digits of a DOUBLE, and are in neither.
    """

    mart: str
    rows: int
    missing: int = 0
    surplus: int = 0
    rounded: int = 0
    columns: tuple[str, ...] = ()
    """Columns without which the rows would be the same, as far as one column alone decides it; or of other types."""
    is_there: bool = True

    @property
    def is_equal(self) -> bool:
        """Whether the other engine says the same."""
        return self.is_there and not (self.missing or self.surplus or self.columns)


def compare(
    warehouse: Path, outputs: Path, *, models: Collection[str] = (), but: Collection[str] = ()
) -> list[Comparison]:
    """Every mart of the warehouse, or these models of any schema, against a folder of Parquet for each.

    Without the columns `but`. Raises duckdb.Error.
    """
    with duckdb.connect(str(warehouse)) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        found = connection.execute(
            "SELECT table_schema, table_name FROM information_schema.tables ORDER BY table_name"
        ).fetchall()
        return [
            _mart(connection, schema, mart, outputs / mart, but)
            for schema, mart in found
            if (mart in models if models else schema == "marts")
        ]


def _mart(
    connection: duckdb.DuckDBPyConnection, schema: str, mart: str, folder: Path, but: Collection[str]
) -> Comparison:
    ours = f"{schema}.{mart}"
    rows = _count(connection, f"FROM {ours}")
    if not any(folder.glob("*.parquet")):
        return Comparison(mart, rows, missing=rows, is_there=False)
    theirs = f"read_parquet('{folder}/*.parquet')"
    mine, yours = (
        {name: type_ for name, type_ in _types(connection, relation).items() if name not in but}
        for relation in (ours, theirs)
    )
    other_types = tuple(name for name, type_ in mine.items() if yours.get(name) != type_)
    if other_types or len(mine) != len(yours):
        return Comparison(mart, rows, missing=rows, columns=other_types)
    missing, surplus = _differences(connection, ours, theirs, list(mine))
    if not (missing or surplus):
        return Comparison(mart, rows)
    rounded = _rounded(connection, ours, theirs, mine)
    missing, surplus = missing - rounded, surplus - rounded
    blamed = _blamed(connection, ours, theirs, list(mine)) if missing or surplus else ()
    return Comparison(mart, rows, missing, surplus, rounded, blamed)


def _differences(connection: duckdb.DuckDBPyConnection, ours: str, theirs: str, columns: list[str]) -> tuple[int, int]:
    return (
        _count(connection, f"FROM ({_lacking(ours, theirs, columns)})"),
        _count(connection, f"FROM ({_lacking(theirs, ours, columns)})"),
    )


def _lacking(ours: str, theirs: str, columns: list[str]) -> str:
    listed = ", ".join(f'"{column}"' for column in columns)
    return f"SELECT {listed} FROM {ours} EXCEPT ALL SELECT {listed} FROM {theirs}"


def _rounded(connection: duckdb.DuckDBPyConnection, ours: str, theirs: str, types: dict[str, str]) -> int:
    """Rows of both, of those that the other lacks, that are the same within the precision of a DOUBLE."""
    doubles = [f'"{name}"' for name, type_ in types.items() if type_ == "DOUBLE"]
    others = [f'"{name}"' for name, type_ in types.items() if type_ != "DOUBLE"]
    if not doubles or not others:
        return 0
    same = [f"mine.{name} IS NOT DISTINCT FROM yours.{name}" for name in others]
    near = [
        f"(mine.{name} IS NOT DISTINCT FROM yours.{name}"
        f" OR abs(mine.{name} - yours.{name}) <= {PRECISION} * greatest(abs(mine.{name}), abs(yours.{name})))"
        for name in doubles
    ]
    listed = list(types)
    return _count(
        connection,
        f"FROM ({_lacking(ours, theirs, listed)}) AS mine JOIN ({_lacking(theirs, ours, listed)}) AS yours"
        f" ON {' AND '.join([*same, *near])}",
    )


def _blamed(connection: duckdb.DuckDBPyConnection, ours: str, theirs: str, columns: list[str]) -> tuple[str, ...]:
    """Columns whose values alone, in any order, are not the same."""
    return tuple(column for column in columns if any(_differences(connection, ours, theirs, [column])))


def _types(connection: duckdb.DuckDBPyConnection, relation: str) -> dict[str, str]:
    return {row[0]: row[1] for row in connection.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()}


def _count(connection: duckdb.DuckDBPyConnection, source: str) -> int:
    (count,) = connection.execute(f"SELECT count(*) {source}").fetchone() or (0,)
    return int(count)
