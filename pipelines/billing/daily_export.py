"""The daily billing export: per UTC day one folder with a CSV, a Parquet file of the same rows, and a manifest.

A version once written is never changed: a day whose rows change gets the next version beside it. The manifest is
written last, so a folder without one is no export. A day without usage has an export without rows.
Does not belong here: what the rows are (models/marts/billing/mart_daily_billing.sql), prices and periods.
"""

import csv
import hashlib
import io
import json
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines import __version__
from pipelines.contract.numbers import plain
from pipelines.home import private_folder, replace_file, sync_folder

SCHEMA = pa.schema(
    [
        pa.field("usage_date", pa.date32(), nullable=False),
        pa.field("tenant_id", pa.string(), nullable=False),
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("charge_class", pa.string(), nullable=False),
        pa.field("unit", pa.string(), nullable=False),
        pa.field("quantity", pa.decimal128(38, 20)),
        pa.field("unpriced_turns", pa.int64(), nullable=False),
    ]
)
"""The published columns. `quantity` counts tokens, or is the reported cost in USD: empty where nothing was reported."""

GAP_DAYS = 92  # how far back a day without usage gets its empty export
FORMULA_STARTS = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # and their full-width forms
Row = dict[str, Any]


@dataclass(frozen=True)
class Exported:
    """What became of one day: its folder, and whether this run wrote it."""

    day: date
    folder: Path
    rows: int
    is_new: bool


def export_days(
    connection: duckdb.DuckDBPyConnection, destination: Path, *, now: datetime | None = None
) -> list[Exported]:
    """Export every day with usage, and the days without between them; days whose rows are unchanged stay as they are.

    A day that was exported before and has lost its usage since is exported once more, without rows. Raises OSError.
    """
    now = now or datetime.now(UTC)
    found = connection.execute("SELECT DISTINCT usage_date FROM marts.mart_daily_billing").fetchall()
    days = {day for (day,) in found}
    days |= {date.fromisoformat(path.name.partition("=")[2]) for path in (destination / "daily").glob("usage_date=*")}
    if not days:
        return []
    # A clock that is wrong by years must not fill the years between with empty days.
    first = max(min(days), now.date() - timedelta(days=GAP_DAYS))
    days |= {first + timedelta(days=number) for number in range((min(max(days), now.date()) - first).days + 1)}
    return [export_day(rows_of(connection, day), destination, day, now=now) for day in sorted(days)]


def drop_superseded(destination: Path, days: Collection[date], users: Collection[str]) -> int:
    """Remove superseded versions of days whose rows named somebody who is erased, and any that name these users.

    The valid version of a day has the same totals; it keeps its number. How many were removed.
    """
    removed = 0
    for folder in (destination / "daily").glob("usage_date=*"):
        day = date.fromisoformat(folder.name.partition("=")[2])
        last = _last_version(folder)
        for version in [path for path in folder.glob("v*") if path != last]:
            if day in days or _names(version / "billing.csv", users):
                shutil.rmtree(version)
                removed += 1
    return removed


def _names(file: Path, users: Collection[str]) -> bool:
    if not users or not file.exists():
        return False
    with file.open(newline="", encoding="utf-8") as opened:
        return any(row["user_id"] in users for row in csv.DictReader(opened))


def rows_of(connection: duckdb.DuckDBPyConnection, day: date) -> list[Row]:
    """The rows of one day in their fixed order, text made harmless for spreadsheets."""
    cursor = connection.execute(
        f"SELECT {', '.join(SCHEMA.names)} FROM marts.mart_daily_billing WHERE usage_date = ?"
        " ORDER BY tenant_id, user_id, model, charge_class",
        [day],
    )
    rows = [dict(zip(SCHEMA.names, row, strict=True)) for row in cursor.fetchall()]
    return [{name: harmless(value) if isinstance(value, str) else value for name, value in row.items()} for row in rows]


def export_day(rows: Sequence[Row], destination: Path, day: date, *, now: datetime) -> Exported:
    """Write one day's next version, unless its last version has the same rows. Raises OSError."""
    folder = destination / "daily" / f"usage_date={day.isoformat()}"
    content = to_csv(rows)
    digest = hashlib.sha256(content).hexdigest()
    last = _last_version(folder)
    if last and json.loads((last / "manifest.json").read_text("utf-8"))["files"][0]["sha256"] == digest:
        return Exported(day, last, len(rows), is_new=False)
    version = int(last.name[1:]) + 1 if last else 1
    target = private_folder(folder / f"v{version:04}")
    files = [("billing.csv", content), ("billing.parquet", to_parquet(rows))]
    for name, data in files:
        replace_file(target / name, data)
    manifest = {
        "export": "daily_billing",
        "usage_date": day.isoformat(),
        "version": version,
        "supersedes": last.name if last else None,
        "exported_at": now.isoformat(),
        "apiary_version": __version__,
        "columns": [{"name": field.name, "type": str(field.type)} for field in SCHEMA],
        "files": [
            {"name": name, "rows": len(rows), "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in files
        ],
        "totals": totals(rows),
    }
    replace_file(target / "manifest.json", (json.dumps(manifest, indent=1) + "\n").encode())
    for path in (target, folder):
        sync_folder(path)
    return Exported(day, target, len(rows), is_new=True)


def totals(rows: Sequence[Row]) -> dict[str, str]:
    """The control totals: quantity by charge class, and the turns without a reported cost."""
    found: dict[str, Decimal] = {}
    with localcontext(prec=60):  # sums of 28 digits, the usual precision, would be rounded
        for row in rows:
            found[row["charge_class"]] = found.get(row["charge_class"], Decimal(0)) + (row["quantity"] or Decimal(0))
    found["unpriced_turns"] = Decimal(sum(row["unpriced_turns"] for row in rows))
    return {name: plain(amount) for name, amount in sorted(found.items())}


def to_csv(rows: Sequence[Row]) -> bytes:
    """The rows as CSV: a header, LF line ends, numbers in digits without exponent, nothing for NULL."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(SCHEMA.names)
    for row in rows:
        writer.writerow([_cell(row[name]) for name in SCHEMA.names])
    return text.getvalue().encode()


def to_parquet(rows: Sequence[Row]) -> bytes:
    """The same rows as Parquet."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(list(rows), schema=SCHEMA), sink, compression="zstd")
    data: bytes = sink.getvalue().to_pybytes()
    return data


def harmless(text: str) -> str:
    """Text that a spreadsheet will not run: a formula's first character gets a quote before it."""
    text = text.replace("\r", " ")  # written without quotes by older Pythons: what follows would begin a cell
    return f"'{text}" if text.lstrip().startswith(FORMULA_STARTS) else text


def _cell(value: object) -> str:
    if value is None:
        return ""
    return plain(value) if isinstance(value, Decimal) else str(value)


def _last_version(folder: Path) -> Path | None:
    """The newest version that is whole; one without a manifest was cut off and is written again."""
    versions = sorted(path.parent for path in folder.glob("v*/manifest.json"))
    return versions[-1] if versions else None
