"""How a value of a mart is written for people, on the pages of the report and in notebooks.

Does not belong here: tables on a terminal (pipelines/commands/tables.py), how many digits an amount has
(contract/numbers.py).
"""

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import NamedTuple

from pipelines.contract.numbers import money, plain, words

UNKNOWN_ENDINGS = ("_usd", "_tokens", "_share", "_amount")
"""Columns in which NULL means an unknown value."""


class Cell(NamedTuple):
    """What stands in a table: the text, the exact value where the text is not it, and whether it is a number."""

    text: str
    exact: str
    is_number: bool


def heading(name: str) -> str:
    """The heading of a column: its name in words, with its unit; durations have theirs beside the number."""
    if name.endswith("_seconds"):
        return f"{words(name.removesuffix('_seconds'))} time"
    return words(name.removesuffix("_usd")) + (" (USD)" if name.endswith("_usd") else "")


def cell(name: str, value: object, rename: Callable[[str], str] = str) -> Cell:
    """A value of a column as people read it: amounts, shares, durations and times by the column's name and the type."""
    if value is None:
        return Cell("unknown" if name.endswith(UNKNOWN_ENDINGS) else "-", "", is_number=False)
    if isinstance(value, bool):
        return Cell("yes" if value else "no", "", is_number=False)
    if isinstance(value, (int, float, Decimal)):
        return _number(name, Decimal(str(value)))
    if isinstance(value, datetime):
        at = value.astimezone(UTC)
        return Cell(f"{at:%Y-%m-%d %H:%M} UTC", at.isoformat(), is_number=False)
    text = str(value)
    renamed = rename(text)
    return Cell(renamed, text if renamed != text else "", is_number=False)


def _number(name: str, value: Decimal) -> Cell:
    exact = plain(value)
    if name.endswith("_seconds"):
        return Cell(_duration(value), exact, is_number=True)
    if name.endswith("_share"):
        return Cell(f"{value * 100:.1f} %", exact, is_number=True)
    if name.endswith("_usd") or value != value.to_integral_value():
        return Cell(money(value), exact, is_number=True)
    return Cell(f"{int(value):,}", exact, is_number=True)


def _duration(seconds: Decimal) -> str:
    """`2 d 3 h`, `4 min`, `1.5 s`: the two largest units."""
    if seconds < 60:
        return f"{seconds:.1f} s".replace(".0 s", " s")
    whole = int(seconds)
    units = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
    parts = [
        f"{whole % above // size} {unit}"
        for (size, unit), above in zip(units, (10**12, 86400, 3600, 60), strict=True)
        if whole >= size
    ]
    return " ".join(parts[:2])
