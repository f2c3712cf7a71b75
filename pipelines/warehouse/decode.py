"""Bytes of a Parquet file to rows that keep to the contract, or the reason why not.

It runs in a process of its own (gate_child.py): a file may be made to break whoever opens it.
Does not belong here: manifests and keys (landing.py), where the bytes come from (gate.py).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, reduce

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.contract.keys import is_keyed
from pipelines.contract.table import EARLIEST, LATEST, SMALLEST_DOUBLE, Column, Keep, Table, is_zone
from pipelines.contract.vocabulary import is_public
from pipelines.contract.wire import BY_NAME

MAX_FOOTER_BYTES = 1 << 20  # ours have some thousand; a million row groups, columns or levels have more
MAX_UNPACKED_BYTES = 256 << 20
MAX_ROWS = 100_000  # twice what a device cuts
# A job ends early when this much was unpacked: what is held at once stays far below the child's memory.
JOB_BYTES = 128 << 20


class RejectedError(Exception):
    """A batch that may not be loaded; the text is the reason, and holds no value of the batch."""


@dataclass(frozen=True)
class Item:
    """One object of a batch, with the sums its manifest claims; None where it claims none."""

    table: str
    data: bytes
    rows: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None


@dataclass
class Decoded:
    """What became of the first `done` batches of a job.

    `counts[table][n]`: rows of batch n, in the order of the rows of `tables[table]`. A refused batch has none.
    """

    done: int = 0
    reasons: dict[int, str] = field(default_factory=dict)
    counts: dict[str, dict[int, int]] = field(default_factory=dict)
    tables: dict[str, pa.Table] = field(default_factory=dict)


def decode(batches: Sequence[Sequence[Item]], announce: Callable[[int], None] = lambda number: None) -> Decoded:
    """Decode batches; `announce` is told which one is being looked at, -1 for all of them together.

    A value rule is applied to all batches at once, and batch by batch only where that fails: most batches are small
    and sound, and a rule has a price of its own.
    """
    found = Decoded()
    read: dict[str, dict[int, pa.Table]] = {}
    before = pa.total_allocated_bytes()
    for number, items in enumerate(batches):
        announce(number)
        try:
            tables = {item.table: read_rows(item.data, BY_NAME[item.table]) for item in items}
        except MemoryError:
            found.reasons[number] = "gate_crash"
        except RejectedError as error:
            found.reasons[number] = str(error)
        else:
            for name, rows in tables.items():
                read.setdefault(name, {})[number] = rows
        found.done = number + 1
        if pa.total_allocated_bytes() - before > JOB_BYTES:
            break
    _check_all(read, found, announce)
    for number, items in enumerate(batches[: found.done]):
        if number not in found.reasons and (reason := _false_claim(items, read, number)) is not None:
            found.reasons[number] = reason
    announce(-1)
    for name, parts in read.items():
        sound = {number: rows for number, rows in parts.items() if number not in found.reasons}
        if sound:
            # In one piece first: a cast of many small pieces takes four times as long.
            found.tables[name] = pa.concat_tables(sound.values()).combine_chunks().cast(BY_NAME[name].arrow)
            found.counts[name] = {number: rows.num_rows for number, rows in sound.items()}
    return found


def _check_all(read: Mapping[str, Mapping[int, pa.Table]], found: Decoded, announce: Callable[[int], None]) -> None:
    for name, parts in read.items():
        announce(-1)
        if _refusal(pa.concat_tables(parts.values()), BY_NAME[name]) is None:
            continue
        for number, rows in parts.items():
            announce(number)
            if (reason := _refusal(rows, BY_NAME[name])) is not None:
                found.reasons.setdefault(number, reason)


def _refusal(rows: pa.Table, table: Table) -> str | None:
    try:
        check(rows, table)
    except RejectedError as error:
        return str(error)
    return None


def _false_claim(items: Sequence[Item], read: Mapping[str, Mapping[int, pa.Table]], number: int) -> str | None:
    """What a manifest says of its objects must be so: the books are balanced with it."""
    for item in items:
        rows = read[item.table][number]
        if item.rows is not None and item.rows != rows.num_rows:
            return "rows_mismatch"
        for column, claimed in (("input_tokens", item.input_tokens), ("output_tokens", item.output_tokens)):
            if claimed is None:
                continue
            if column not in BY_NAME[item.table].by_name or claimed != (pc.sum(rows.column(column)).as_py() or 0):
                return "sum_mismatch"
    return None


def read_rows(data: bytes, table: Table) -> pa.Table:
    """The rows of a file whose columns are the contract's; texts as dictionaries, values not looked at yet.

    Raises RejectedError, MemoryError.
    """
    try:
        if data[-4:] == b"PAR1" and int.from_bytes(data[-8:-4], "little") > MAX_FOOTER_BYTES:
            raise RejectedError("footer_too_large")
        footer = pq.read_metadata(pa.BufferReader(data))
        groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
        if max(footer.num_rows, sum(group.num_rows for group in groups)) > MAX_ROWS:
            raise RejectedError("too_many_rows")
        if sum(group.total_byte_size for group in groups) > MAX_UNPACKED_BYTES:
            raise RejectedError("object_too_large")
        schema = footer.schema.to_arrow_schema()
        columns = [c for c in table.columns if not c.is_addition or c.name in schema.names]
        if schema.names != [column.name for column in columns]:
            raise RejectedError("unknown_columns")
        if schema.types != [table.arrow.field(column.name).type for column in columns]:
            raise RejectedError("wrong_types")
        # Texts stay dictionaries until they were checked: one long text that every row names would fill the memory.
        texts = [column.name for column in columns if column.type == "string"]
        file = pq.ParquetFile(pa.BufferReader(data), metadata=footer, read_dictionary=texts, pre_buffer=False)
        rows = file.read(use_threads=False)  # most batches are small: handing them to threads takes longer
        rows.validate(full=True)  # a text that is no UTF-8 would break whoever looks at it
    except MemoryError:
        raise
    except (pa.ArrowException, ValueError, OSError):
        raise RejectedError("unreadable_object") from None
    # What came within the version is NULL; and a file has no say in which of its columns may be.
    whole = _read_schema(table)
    values = dict(zip(rows.column_names, rows.columns, strict=True))
    return pa.Table.from_arrays(
        [values.get(field.name, pa.nulls(rows.num_rows, field.type)) for field in whole], schema=whole
    )


@cache
def _read_schema(table: Table) -> pa.Schema:
    """The schema of a table while its values are not checked: texts as dictionaries, NULL allowed everywhere."""
    text = pa.dictionary(pa.int32(), pa.string())
    return pa.schema([(field.name, text if field.type == pa.string() else field.type) for field in table.arrow])


def check(rows: pa.Table, table: Table) -> None:
    """The value rules of the contract, once more: what a sound device cannot send, no device may."""
    for column in table.columns:
        values = rows.column(column.name)
        if column.required and values.null_count:
            raise RejectedError(f"null_value:{column.name}")
        if column.type == "string":
            found = {value for chunk in values.chunks for value in chunk.dictionary.to_pylist()}
            if not all(_fits(column, value) for value in found):
                raise RejectedError(f"bad_value:{column.name}")
        elif column.type != "bool" and _is_outside(column, values):
            raise RejectedError(f"out_of_range:{column.name}")
    for total, parts in table.sums:
        # One row that does not add up would fail the books of everybody, which stop publishing and billing.
        if not rows.column(total).equals(reduce(pc.add, [rows.column(part) for part in parts])):
            raise RejectedError(f"unbalanced:{total}")
    for rule in table.rules:
        # NULL is in no list: a value beside it is refused too.
        is_in = pc.is_in(rows.column(rule.other).cast(pa.string()), value_set=pa.array(rule.values, pa.string()))
        if pc.any(pc.and_(pc.is_valid(rows.column(rule.column)), pc.invert(is_in))).as_py():
            raise RejectedError(f"inconsistent:{rule.column}")


def _is_outside(column: Column, values: pa.ChunkedArray) -> bool:
    """Whether a number or a time is out of its bounds."""
    if column.type == "double":
        tiny = pc.and_(pc.less(pc.abs(values), SMALLEST_DOUBLE), pc.not_equal(values, 0.0))
        if pc.any(pc.or_(pc.is_nan(values), tiny)).as_py():
            return True  # the least and the greatest pass over it
    lowest: int | None = column.minimum
    highest: int | None = column.maximum
    if column.type == "timestamp":
        values = values.cast(pa.int64())  # the extremes are no times in Python
        lowest, highest = (int(time.timestamp()) * 1_000_000 for time in (EARLIEST, LATEST))
    bounds = pc.min_max(values).as_py()
    low, high = bounds["min"], bounds["max"]
    if low is None:
        return False
    if column.type == "decimal" and low == 0:
        return True  # unreported is NULL; one cost of 0 would keep everybody's data behind the gate
    return (lowest is not None and low < lowest) or (highest is not None and high > highest)


def _fits(column: Column, value: str) -> bool:
    """Whether a string is one that redaction can give: a listed value, a public name, a generated id, a keyed hash;
    or could give in an earlier version."""
    if column.keep in (Keep.KEYED_HASH, Keep.ID):
        return (
            is_keyed(value)
            or (bool(column.vocabulary) and is_public(column.vocabulary, value))
            or bool(column.pattern and column.regex.fullmatch(value))
            or bool(column.accepted and column.accepted_regex.fullmatch(value))
        )
    if column.is_zone and not is_zone(value):
        return False
    return value in column.values if column.values else column.regex.fullmatch(value) is not None
