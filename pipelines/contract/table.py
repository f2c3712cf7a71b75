"""What a contract table and a column are, and the schemas derived from them.

Does not belong here: the tables themselves (wire.py), how a value is made fit to travel (device/redact.py).
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache, cached_property
from typing import Any, Literal
from zoneinfo import available_timezones

import pyarrow as pa

Type = Literal["string", "int64", "bool", "double", "timestamp", "decimal"]

ARROW: dict[Type, pa.DataType] = {
    "string": pa.string(),
    "int64": pa.int64(),
    "bool": pa.bool_(),
    "double": pa.float64(),
    "timestamp": pa.timestamp("us", tz="UTC"),
    # Money: the digits of the source's JSON text, never a float. A double's shortest text has at most 17 digits.
    "decimal": pa.decimal128(38, 20),
}

DUCKDB: dict[Type, str] = {
    "string": "VARCHAR",
    "int64": "BIGINT",
    "bool": "BOOLEAN",
    "double": "DOUBLE",
    "timestamp": "TIMESTAMPTZ",
    "decimal": "DECIMAL(38, 20)",
}

# Times that may travel. A machine's own clock and its files may well say 1970; outside these years an instant
# breaks the calendars of what reads the wire. A time that a source wrote as text is believed from 2000 on:
# before that there was nothing to write it, and a zero means that it was not set.
EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
EARLIEST_WRITTEN = datetime(2000, 1, 1, tzinfo=UTC)

# Doubles are seconds. A positive one below a microsecond is no measurement, and a quotient by it is beyond any number.
SMALLEST_DOUBLE = 1e-6


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


def is_zone(text: str) -> bool:
    """Whether a text is the key of a time zone: nobody can tell a secret in one."""
    return text in _zones()


class Keep(StrEnum):
    """How a value of the source becomes a value that may leave the device. Free text has no way in."""

    VERBATIM = "verbatim"
    """Numbers, times, booleans; strings only of a closed list or a pattern, anything else becomes NULL or `other`."""
    ID = "id"
    """An identifier that matches `pattern`, of forms which a source generates for that column, or stands in the
    `vocabulary` travels as it is; any other was chosen by a person and is keyed."""
    KEYED_HASH = "keyed_hash"
    """A name chosen by a person: a hash under a key that never leaves the tenant; public names may travel in clear."""
    COUNT = "count"
    """A list or a text becomes its length."""
    CLASS = "class"
    """A text becomes one of a closed list of classes."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column: its type, why it is collected and how its value is kept.

    `values`: the closed list of an enum (a value outside it becomes `other` if listed, else NULL).
    `pattern`: what a verbatim string must match in full, or what an identifier must match to travel as it is.
    `accepted`: what earlier versions let through besides: such rows are still loaded, and sent no more.
    `vocabulary`: the list of public names of a keyed column that may travel in clear (contract/vocabulary).
    `minimum`, `maximum`: bounds of a number, inclusive; a value outside them is refused, not clipped.
    `is_zone`: whether it names a time zone; a name that no zone has is refused.
    `fact`: whether the value is the source's own; keyed names, resolved times and file times may differ between two
    devices that hold the same record and are no conflict.
    `is_addition`: the column came within the version: a device that does not know it yet sends batches without it.
    """

    name: str
    type: Type
    why: str
    keep: Keep = Keep.VERBATIM
    values: tuple[str, ...] = ()
    pattern: str = ""
    accepted: str = ""
    vocabulary: str = ""
    minimum: int | None = None
    maximum: int | None = None
    required: bool = False
    is_zone: bool = False
    fact: bool = True
    is_addition: bool = False

    def __post_init__(self) -> None:
        if self.is_addition and self.required:
            raise ValueError(f"column {self.name}: what came within a version cannot be required")
        if self.type == "string" and self.keep in (Keep.VERBATIM, Keep.CLASS) and not (self.values or self.pattern):
            raise ValueError(f"column {self.name}: a verbatim string needs a closed list or a pattern")
        if not self.why:
            raise ValueError(f"column {self.name}: a column that nobody can justify has no way in")

    @cached_property
    def regex(self) -> re.Pattern[str]:
        """The compiled `pattern`."""
        return re.compile(self.pattern, re.ASCII)  # a digit of another script is no digit of ours

    @cached_property
    def accepted_regex(self) -> re.Pattern[str]:
        """The compiled `accepted`."""
        return re.compile(self.accepted, re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A rule between two columns of a row: `column` holds a value only where `other` is one of `values`.

    A device sends the row without the value (`mend`); the gate refuses a batch that has it.
    """

    column: str
    other: str
    values: tuple[str, ...]
    why: str

    def mend(self, row: dict[str, Any]) -> bool:
        """Take a value that must not be there out of a row; whether one was there."""
        is_broken = row.get(self.column) is not None and row.get(self.other) not in self.values
        if is_broken:
            row[self.column] = None
        return is_broken


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table of the wire: a name, the meaning of a row, and its columns. `record_id` is always the first column.

    `identity`: what `record_id` rests on. `is_keyless`: it never rests on the tenant's key, so that tokens are counted
    once even where devices of a tenant have no common key.
    `sums`: totals that a row states beside the parts which must add up to them. `rules`: which values go together.
    `superseded_by`: columns, the first of them a flag, by which a later observation of a record takes the place of an
    earlier one: the row whose values are greatest speaks, in whatever order they arrive. Only between rows whose
    flag is set; other rows of one record that differ in facts are a conflict.
    `origin_by`: columns, besides the least session, by which the origin is told among rows of one record: the row whose
    values are least names the session. `origin`: what only the origin knows, and of such rows is therefore no fact.
    """

    name: str
    grain: str
    source: str
    columns: tuple[Column, ...]
    identity: str = ""
    is_keyless: bool = False
    sums: tuple[tuple[str, tuple[str, ...]], ...] = ()
    rules: tuple[Rule, ...] = ()
    superseded_by: tuple[str, ...] = ()
    origin_by: tuple[str, ...] = ()
    origin: tuple[str, ...] = ()
    version: int = 1

    @cached_property
    def by_name(self) -> dict[str, Column]:
        """Columns by their names."""
        return {column.name: column for column in self.columns}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Column names in the order of the schema."""
        return tuple(column.name for column in self.columns)

    @cached_property
    def arrow(self) -> pa.Schema:
        """The Arrow schema of a Parquet file of this table."""
        return pa.schema([pa.field(c.name, ARROW[c.type], nullable=not c.required) for c in self.columns])

    @property
    def schema_id(self) -> str:
        """The schema's name as a manifest writes it: `llm_turns/1`."""
        return f"{self.name}/{self.version}"
