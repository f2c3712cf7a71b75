"""Blocks: staged rows of one table in columns, as they wait in the state until their batch is delivered.

Columns are made once, when rows are staged, and are what a Parquet file is written from. A block names its columns: one
that was written by an earlier version lacks those that came since.
Does not belong here: where blocks are kept (state.py), the file of a batch (spool.py).
"""

from __future__ import annotations

from collections.abc import Collection, Container, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from operator import itemgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[str, Any]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def pack(table: str, rows: Sequence[Row]) -> bytes:
    """The block of some rows of a contract table. Columns that hold nothing are left out."""
    import pyarrow as pa

    from pipelines.contract.wire import BY_NAME

    arrays: list[pa.Array] = []
    fields: list[pa.Field] = []
    contract = BY_NAME[table]
    whole = itemgetter(*contract.names)
    empty = dict.fromkeys(contract.names)
    columns = zip(*[whole(row if len(row) == len(empty) else empty | row) for row in rows], strict=True)
    for column, field, values in zip(contract.columns, contract.arrow, columns, strict=False):
        if values.count(None) < len(values):
            is_typed = column.type not in ("timestamp", "decimal")
            typed = values if is_typed else [_typed(column.type, value) for value in values]
            arrays.append(pa.array(typed, type=field.type))
            fields.append(field)
    return _written(pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields)))


def _written(batch: pa.RecordBatch) -> bytes:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def unpack(data: bytes) -> pa.RecordBatch:
    """The columns of a block."""
    import pyarrow as pa

    with pa.ipc.open_stream(data) as reader:
        return reader.read_next_batch()


def rows_in(data: bytes, columns: Container[str] | None = None) -> list[Row]:
    """The rows of a block, or some of their columns: a row lacks what no row of the block holds."""
    return _rows(unpack(data), columns)


def _rows(batch: pa.RecordBatch, columns: Container[str] | None = None) -> list[Row]:
    names = [name for name in batch.schema.names if columns is None or name in columns]
    values = [_values(batch.column(name)) for name in names]
    return [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]


def whole_rows_in(table: str, data: bytes, sessions: Collection[str] | None = None) -> list[Row]:
    """The rows of a block, or those of some sessions, with all columns that the contract has."""
    import pyarrow as pa

    from pipelines.contract.wire import BY_NAME

    batch, empty = unpack(data), dict.fromkeys(BY_NAME[table].names)
    if sessions is not None:
        of_them = [value in sessions for value in batch.column("session_id").to_pylist()]
        batch = batch.filter(pa.array(of_them))
    return [empty | row for row in _rows(batch)]


def _values(column: pa.Array) -> list[Any]:
    import pyarrow as pa

    if not pa.types.is_timestamp(column.type):
        values: list[Any] = column.to_pylist()
        return values
    # pyarrow itself would ask pandas, which the command line keeps out.
    numbers = column.view(pa.int64()).to_pylist()
    return [None if number is None else EPOCH + timedelta(microseconds=number) for number in numbers]


def without(table: str, data: bytes, record_ids: set[str]) -> tuple[bytes | None, list[Row]]:
    """A block without the rows of some records (None if it holds no other), and these rows."""
    rows = rows_in(data)
    kept = [row for row in rows if row["record_id"] not in record_ids]
    return pack(table, kept) if kept else None, [row for row in rows if row["record_id"] in record_ids]


def split(data: bytes, rows: int) -> tuple[bytes, bytes]:
    """The first rows of a block and the others, each as a block."""
    batch = unpack(data)
    return _written(batch.slice(0, rows)), _written(batch.slice(rows))


def _typed(kind: str, value: Any) -> Any:
    """A time or an amount: of a record whose parts were kept as JSON it is text."""
    if not isinstance(value, str):
        return value
    return datetime.fromisoformat(value) if kind == "timestamp" else Decimal(value)
