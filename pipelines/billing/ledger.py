"""What of billing outlives the warehouse: the book of periods, the sealed lines of closed months, provider reports,
and what versions of statements changed.

The first three are files under `billing/` in APIARY_HOME that are only ever added, the last lies beside each statement;
here they are read into the warehouse's schema `billing`, where the models find them. A sealed file is named by its
content.
Does not belong here: the rules of the book (periods.py), what a report says (provider_reports.py), the models.
"""

import hashlib
import io
import json
from dataclasses import asdict
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.billing import focus, periods, provider_reports
from pipelines.billing.periods import Book
from pipelines.billing.statements import MANIFEST
from pipelines.errors import ExpectedError
from pipelines.home import replace_file

_AMOUNT = pa.decimal128(38, 15)
_PRICE = pa.decimal128(18, 9)
_TIME = pa.timestamp("us", tz="UTC")
_TEXT = (
    "line_id", "record_id", "tenant_id", "billing_account_id", "user_id", "session_id", "root_session_id", "colony_id",
    "queen_id", "provider_name", "model", "model_basis", "component", "charge_category", "charge_frequency",
    "description", "price_id", "contract_rate_id", "settlement_id", "pricing_currency", "fx_rate_id", "currency",
    "consumed_unit", "pricing_unit", "trust_grade", "line_kind", "cause",
)  # fmt: skip
PRICES = ("pricing_unit_price", "pricing_contracted_unit_price", "list_unit_price", "contracted_unit_price")
LINES = pa.schema(
    [pa.field(name, pa.string()) for name in _TEXT]
    + [pa.field("events", pa.int64()), pa.field("booking", pa.int64())]
    + [pa.field("consumed_quantity", pa.decimal128(38, 6)), pa.field("pricing_quantity", pa.decimal128(20, 6))]
    + [pa.field(name, _PRICE) for name in PRICES]
    + [pa.field(name, _AMOUNT) for name in ("list_cost", "contracted_cost", "billed_cost", "effective_cost")]
    + [
        pa.field(name, pa.date32())
        for name in ("charge_start_date", "charge_end_date", "incurred_period", "original_period", "billing_period")
    ]
    + [pa.field("rated_as_of", _TIME)]
)
"""A booked line as it is sealed: as in int_billing__booked_lines. A file that is older than a column has NULL."""

_CLOSED = LINES.append(pa.field("seal_seq", pa.int64()))
_PERIODS = pa.schema([
    pa.field("billing_account_id", pa.string()), pa.field("billing_period", pa.date32()),
    pa.field("status", pa.string()), pa.field("bookings", pa.int64()), pa.field("is_frozen", pa.bool_()),
    pa.field("created_at", _TIME), pa.field("updated_at", _TIME),
])  # fmt: skip
_EVENTS = pa.schema([
    pa.field("seq", pa.int64()), pa.field("billing_accounts", pa.string()), pa.field("billing_period", pa.date32()),
    pa.field("status_before", pa.string()),
    pa.field("status_after", pa.string()), pa.field("actor", pa.string()), pa.field("requested_by", pa.string()),
    pa.field("reason", pa.string()), pa.field("waived", pa.string()), pa.field("totals_sha256", pa.string()),
    pa.field("seal_sha256", pa.string()), pa.field("as_of", _TIME), pa.field("watermark_at", _TIME),
    pa.field("grace_until", _TIME),
])  # fmt: skip


# A row as text holds ids of sessions: who wants it finds it in the statement's own file.
_RESTATED = [field for field in focus.RESTATEMENT if not field.name.startswith("row_") or field.name == "row_key"]
_RESTATEMENTS = pa.schema([
    pa.field("export", pa.string()), pa.field("billing_period", pa.date32()), pa.field("usage_date", pa.date32()),
    pa.field("version", pa.int64()), pa.field("accepted_by", pa.string()), pa.field("as_of", _TIME), *_RESTATED,
])  # fmt: skip


class SealError(ExpectedError):
    """A sealed file is missing or its bytes are not what its name says; nothing may be corrected against it."""


def book_path(folder: Path) -> Path:
    """The book of periods under `billing/`."""
    return folder / "periods.jsonl"


def seal(folder: Path, lines: pa.Table) -> str:
    """Freeze lines in a file named by its content; its hash. The same lines in any order give the same file."""
    ordered = lines.select(LINES.names).cast(LINES).sort_by([("tenant_id", "ascending"), ("line_id", "ascending"),
                                                             ("line_kind", "ascending")])  # fmt: skip
    sink = io.BytesIO()
    pq.write_table(ordered, sink, compression="zstd")
    data = sink.getvalue()
    digest = hashlib.sha256(data).hexdigest()
    path = folder / "closed" / f"{digest}.parquet"
    if not path.exists():
        replace_file(path, data)
    return digest


def renamed_path(folder: Path) -> Path:
    """Which sealed files have another name since identifiers were taken out of them."""
    return folder / "closed" / "erased.json"


def renamed(folder: Path) -> dict[str, str]:
    """The names now of sealed files, by the names that the book knows."""
    path = renamed_path(folder)
    return dict(json.loads(path.read_text("utf-8"))) if path.exists() else {}


def current_name(folder: Path, digest: str) -> str:
    """Under which name the lines lie that the book knows by this one."""
    return renamed(folder).get(digest, digest)


def reload(connection: duckdb.DuckDBPyConnection, folder: Path) -> Book:
    """Read all sealed files again, also those that the warehouse has read: they were redacted. Raises like `load`."""
    connection.execute("DROP TABLE IF EXISTS billing.closed_lines")
    connection.execute("DROP TABLE IF EXISTS billing.read_seals")
    return load(connection, folder)


def sealed(folder: Path, digest: str) -> pa.Table:
    """The lines of one sealed file. Raises SealError."""
    digest = current_name(folder, digest)
    path = folder / "closed" / f"{digest}.parquet"
    if not path.exists():
        raise SealError(f"{path} is missing: restore it, the lines of a closed month are kept nowhere else")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != digest:
        raise SealError(f"{path} was changed: restore it, the lines of a closed month are kept nowhere else")
    return pq.read_table(io.BytesIO(data), schema=LINES)


def load(connection: duckdb.DuckDBPyConnection, folder: Path) -> Book:
    """Read the files into the schema `billing`, all of them or none; the book.

    Raises periods.BookError, SealError, provider_reports.ReportError.
    """
    book = periods.read(book_path(folder))
    tables = {
        "periods": pa.Table.from_pylist(_periods(book), schema=_PERIODS),
        "period_events": pa.Table.from_pylist(_events(book), schema=_EVENTS),
        "provider_costs": provider_reports.table(folder / "provider"),
    }
    connection.execute("BEGIN")
    try:
        connection.execute("CREATE SCHEMA IF NOT EXISTS billing")
        for name, table in tables.items():
            connection.register("ledger_rows", table)
            connection.execute(f"CREATE OR REPLACE TABLE billing.{name} AS SELECT * FROM ledger_rows")
            connection.unregister("ledger_rows")
        _load_seals(connection, folder, book)
        connection.register("ledger_rows", _RESTATEMENTS.empty_table())
        connection.execute("CREATE TABLE IF NOT EXISTS billing.restatements AS SELECT * FROM ledger_rows")
        connection.unregister("ledger_rows")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    return book


def load_restatements(connection: duckdb.DuckDBPyConnection, exports: Path) -> None:
    """Read what each version of a statement changed of the one before. Raises OSError, ValueError."""
    rows: list[dict[str, Any]] = []
    for path in sorted(exports.glob(f"*/**/v[0-9][0-9][0-9][0-9]/{MANIFEST}")):
        manifest = json.loads(path.read_bytes())
        if not manifest["restatement"]["rows"]:
            continue
        about = {
            "export": manifest["export"], "billing_period": periods.month_of(manifest["billing_period"]),
            "usage_date": date.fromisoformat(day) if (day := manifest.get("usage_date")) else None,
            "version": manifest["version"], "accepted_by": manifest["restatement"]["accepted_by"],
            "as_of": datetime.fromisoformat(manifest["generated_from"]["as_of"]),
        }  # fmt: skip
        columns = [field.name for field in _RESTATED]
        table = pq.read_table(path.with_name("restatement.parquet"), columns=columns, partitioning=None)
        rows += [about | row for row in table.to_pylist()]
    connection.register("ledger_rows", pa.Table.from_pylist(rows, schema=_RESTATEMENTS))
    connection.execute("CREATE OR REPLACE TABLE billing.restatements AS SELECT * FROM ledger_rows")
    connection.unregister("ledger_rows")


def _load_seals(connection: duckdb.DuckDBPyConnection, folder: Path, book: Book) -> None:
    """Add the sealed files that the warehouse has not read yet: they never change, only their number grows."""
    connection.register("ledger_rows", _CLOSED.empty_table())
    found = connection.execute(
        "SELECT list(column_name ORDER BY column_index) FROM duckdb_columns()"
        " WHERE database_name = current_database() AND schema_name = 'billing' AND table_name = 'closed_lines'"
    ).fetchone()
    if found and found[0] and found[0] != _CLOSED.names:  # of another version
        connection.execute("DROP TABLE billing.closed_lines")
        connection.execute("DELETE FROM billing.read_seals")
    connection.execute("CREATE TABLE IF NOT EXISTS billing.closed_lines AS SELECT * FROM ledger_rows")
    connection.execute("CREATE TABLE IF NOT EXISTS billing.read_seals (seal_seq BIGINT, sha256 VARCHAR)")
    connection.unregister("ledger_rows")
    expected = [(number, digest) for number, (_, digest) in enumerate(book.seals, 1)]
    read = connection.execute("SELECT seal_seq, sha256 FROM billing.read_seals ORDER BY seal_seq").fetchall()
    if read != expected[: len(read)]:  # another home's warehouse
        connection.execute("DELETE FROM billing.closed_lines")
        connection.execute("DELETE FROM billing.read_seals")
        read = []
    for number, digest in expected[len(read) :]:
        lines = sealed(folder, digest)
        connection.register("ledger_rows", lines.append_column("seal_seq", pa.array([number] * len(lines), pa.int64())))
        connection.execute("INSERT INTO billing.closed_lines SELECT * FROM ledger_rows")
        connection.unregister("ledger_rows")
        connection.execute("INSERT INTO billing.read_seals VALUES (?, ?)", [number, digest])


def _periods(book: Book) -> list[dict[str, Any]]:
    """Every month of each account that the book names, and of all others (account None): from its first in the book to
    the oldest that is open; other months before are frozen too."""
    rows = []
    for account in (None, *sorted(book.accounts)):
        own = book.of(account)
        if not own:
            continue
        frozen = book.closed_through(account)
        month = min(item.period for item in own)
        last = max([item.period for item in own] + ([periods.after(frozen)] if frozen else []))
        while month <= last:
            mine = [item for item in own if item.period == month]
            rows.append({
                "billing_account_id": account, "billing_period": month, "status": book.status(month, account),
                "bookings": sum(item.seal is not None for item in mine),
                "is_frozen": frozen is not None and month <= frozen,
                "created_at": mine[0].as_of if mine else _start(month),
                "updated_at": mine[-1].as_of if mine else _start(month),
            })  # fmt: skip
            month = periods.after(month)
    return rows


def _events(book: Book) -> list[dict[str, Any]]:
    rows = []
    for seq, item in enumerate(book.transitions, 1):
        row = asdict(item)
        rows.append({
            **row, "seq": seq, "billing_period": item.period, "status_before": item.before, "status_after": item.after,
            "waived": json.dumps(dict(item.waived), sort_keys=True), "seal_sha256": item.seal,
            "billing_accounts": None if item.accounts is None else ",".join(item.accounts),
        })  # fmt: skip
    return [{name: row[name] for name in _EVENTS.names} for row in rows]


def _start(month: date) -> datetime:
    return datetime.combine(month, datetime.min.time(), UTC)
