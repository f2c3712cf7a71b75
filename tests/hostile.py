"""Rows that keep to the contract and mean harm: every column at its bounds, ids that collide, whatever may be NULL.

Made from the contract's declarations alone: a column that comes is attacked by itself. Does not belong here: what the
gate and the marts make of them (tests/dbt/test_hostile.py).
"""

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from pipelines.contract.table import EARLIEST, LATEST, SMALLEST_DOUBLE, Column, Keep, Table
from pipelines.contract.vocabulary import names
from pipelines.contract.wire import TABLES
from tests.warehouse_part.batches import fitting, record

Row = dict[str, Any]
AGES = (
    EARLIEST, EARLIEST + timedelta(microseconds=1), LATEST, LATEST - timedelta(microseconds=1),
    datetime(2026, 3, 29, 1, tzinfo=UTC), datetime(2026, 3, 1, 12, tzinfo=UTC), datetime(2024, 2, 29, tzinfo=UTC),
)  # fmt: skip
"""Instants at the bounds, and a few between which honest ones lie."""


def candidates(column: Column, ids: tuple[str, ...]) -> list[Any]:
    """Values at the edges of what a column may hold; NULL where it may be."""
    found: list[Any] = [] if column.required else [None]
    match column.type:
        case "bool":
            found += [True, False]
        case "timestamp":
            found += AGES
        case "int64":
            low = -(2**63) if column.minimum is None else column.minimum
            high = 2**63 - 1 if column.maximum is None else column.maximum
            found += sorted({low, min(low + 1, high), high, max(low, min(high, 7))})
        case "double":
            low, high = float(column.minimum or 0), float(column.maximum or 1.7e308)
            found += sorted({low, low or SMALLEST_DOUBLE, high, high * (1 - 2**-53), 0.1})
        case "decimal":
            found += [Decimal(1).scaleb(-20), Decimal(column.maximum or 10**17), Decimal("0.00000000000000000001")]
        case "string":
            found += texts(column, ids)
    return found


def texts(column: Column, ids: tuple[str, ...]) -> list[str]:
    """Texts that a column may hold: every value of a closed list, ids from a small pool that all tables share."""
    if column.values:
        return list(column.values)
    if column.is_zone:
        return ["Pacific/Kiritimati", "Pacific/Apia", "Asia/Kathmandu", "UTC"]
    if column.keep in (Keep.ID, Keep.KEYED_HASH):
        known = sorted(names(column.vocabulary))[:3] if column.vocabulary else []
        keyed = [f"k1_{record(f'{column.name} {number}')}" for number in range(2)]
        matching = [
            text for text in ("1", "999999999", "1,2", "1,1") if column.pattern and column.regex.fullmatch(text)
        ]
        fitting_ids = [text for text in ids if not column.pattern or column.regex.fullmatch(text)]
        return [*known, *keyed, *matching, *(fitting_ids if column.keep is Keep.ID else ())]
    return [fitting(column)]


def rows(table: Table, seed: int, count: int, ids: tuple[str, ...]) -> list[Row]:
    """Rows in which the edges of all columns meet: all at one bound, any two columns NULL with and without each other,
    every value of every column, and then whatever comes."""
    rng = random.Random(f"{table.name} {seed}")
    columns = [column for column in table.columns if column.name != "record_id"]
    pools = {column.name: candidates(column, ids) for column in columns}
    chosen: list[Row] = [{name: pool[place] for name, pool in pools.items()} for place in (0, -1)]
    for is_null in _patterns(sum(not column.required for column in columns)):
        nulls = iter(is_null)
        chosen.append(
            {
                column.name: None if not column.required and next(nulls) else rng.choice(_values(pools[column.name]))
                for column in columns
            }
        )
    longest = max(map(len, pools.values()))
    chosen += [{name: pool[number % len(pool)] for name, pool in pools.items()} for number in range(longest)]
    while len(chosen) < count:
        chosen.append({name: rng.choice(pool) for name, pool in pools.items()})
    return [
        _kept_to(table, {"record_id": record(f"{seed} {table.name} {number}")} | row, rng)
        for number, row in enumerate(chosen)
    ]


def _values(pool: list[Any]) -> list[Any]:
    return [value for value in pool if value is not None]


def _patterns(columns: int) -> list[list[bool]]:
    """Which columns are NULL, row by row: any two of them in all four ways. Two numbers differ in a bit."""
    bits = range(max(1, columns.bit_length()))
    coded = [[bool(number >> bit & 1) for number in range(columns)] for bit in bits]
    return [[False] * columns, [True] * columns, *coded, *([not value for value in row] for row in coded)]


def _kept_to(table: Table, row: Row, rng: random.Random) -> Row:
    """A row whose columns agree with each other as the contract wants it."""
    for total, parts in table.sums:
        while sum(row[part] or 0 for part in parts) > (table.by_name[total].maximum or 0):
            row |= {part: rng.choice((0, 1, 7)) for part in parts}
        row |= {total: sum(row[part] or 0 for part in parts)}
    for rule in table.rules:
        rule.mend(row)
    return row


def batch_of(seed: int, count: int, ids: tuple[str, ...]) -> dict[str, list[Row]]:
    """Such rows of every table."""
    return {table.name: rows(table, seed, count, ids) for table in TABLES}
