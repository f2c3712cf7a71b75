"""`exports/current/`: the files finance works with. Only valid versions, one folder per account, nobody's sessions.

They are made from the statements (exports.py) and replaced when those change; the statements stay the record, with ids
of sessions and the chain. A folder holds `costs` and `invoice` as CSV and Parquet, a workbook, and a page (HTML, PDF).
Does not belong here: what is in a statement (exports.py), the page's layout (customer_page.py, customer_pdf.py).
"""

import csv
import hashlib
import io
import json
import re
import shutil
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.billing import attestation, customer_page, periods
from pipelines.billing.books import UNATTRIBUTED
from pipelines.billing.exports import COSTS, folder_name
from pipelines.billing.focus import AMOUNT, COUNT, MONEY, TEXT
from pipelines.billing.statements import Row, StatementStore, Version, harmless, place, to_csv, to_parquet
from pipelines.failpoints import fp

FOLDER = "current"
COSTS_SCHEMA = pa.schema([
    pa.field("usage_date", pa.date32(), nullable=False),
    *(pa.field(name, TEXT) for name in (
        "charge", "correction", "user", "provider", "model", "model_basis", "token_type", "description", "currency",
    )),
    pa.field("tokens", COUNT),
    *(pa.field(name, AMOUNT, nullable=False) for name in ("list_cost", "contracted_cost", "billed_cost")),
])  # fmt: skip
"""One row per day, user, model, kind of token and kind of charge: nobody's session is told apart."""
INVOICE_SCHEMA = pa.schema([
    *(pa.field(name, TEXT, nullable=False) for name in ("invoice", "line", "charge")),
    pa.field("provider", TEXT), pa.field("model", TEXT), pa.field("currency", TEXT, nullable=False),
    pa.field("exact", AMOUNT, nullable=False), pa.field("payable", MONEY, nullable=False),
])  # fmt: skip


_RATE = Decimal("0.000001")


@dataclass(frozen=True)
class Month:
    """One account's month as its valid statement says it.

    `rates`: of the currencies that prices are in and the amounts are not, what one is worth: pricing currency, billing
    currency, rate.
    """

    account: str
    period: date
    version: Version
    costs: Sequence[Row]
    invoice: Sequence[Row]
    unpriced: Sequence[Row]
    name: str | None = None
    rates: Sequence[tuple[str, str, Decimal]] = ()

    @property
    def payable(self) -> dict[str, tuple[Decimal, Decimal]]:
        """Exact sum and payable amount, by currency."""
        found: dict[str, tuple[Decimal, Decimal]] = {}
        with localcontext(prec=60):
            for line in self.invoice:
                exact, payable = found.get(line["currency"], (Decimal(0), Decimal(0)))
                found[line["currency"]] = exact + line["exact"], payable + line["payable"]
        return found


def refresh(statements: StatementStore) -> list[Path]:
    """Bring `current/` up to date with the valid version of each account's month; the folders that were written.

    What no statement stands behind any more goes, and what was changed since it was signed is made again: sign it then
    (attestation.attest). Raises OSError.
    """
    root = statements.root / FOLDER
    signed = attestation.current_files(statements.root)
    months = list(_months(statements))
    by_place = {(month.account, month.period): month for month in months}
    written, wanted = [], set()
    for month in months:
        folder = root / folder_name(month.account) / f"{month.period:%Y-%m}"
        wanted.add(folder)
        before = by_place.get((month.account, (month.period - timedelta(days=1)).replace(day=1)))
        if _is_current(folder, month, before, signed):
            continue
        place(
            folder,
            _files(month, before),
            replacing=folder.with_name(f".{folder.name}.before") if folder.exists() else None,
        )
        written.append(folder)
    fp("current.written")
    for folder in sorted(root.glob("*/*")):
        if folder not in wanted:
            shutil.rmtree(folder)
    return written


def _months(statements: StatementStore) -> Iterable[Month]:
    """The newest statement of each account and month; one of an earlier version is split by account."""
    for statement, version in sorted(statements.newest.items()):
        if version.manifest["export"] != "focus_monthly":
            continue
        period = periods.month_of(version.manifest["billing_period"])
        rows = _table(version, COSTS)
        invoices = _table(version, "focus_invoice_detail")
        unpriced = _table(version, "unpriced")
        accounts = {row["BillingAccountId"] for row in [*rows, *invoices]} | {
            row["billing_account_id"] for row in unpriced
        }
        named = version.manifest.get("billing_account_id")
        for account in sorted({named} if named else accounts - {UNATTRIBUTED}):
            own = statements.root / "monthly" / f"billing_period={period:%Y-%m}" / f"account={folder_name(account)}"
            if own != statement and own in statements.newest:
                continue
            theirs = [row for row in rows if row["BillingAccountId"] == account]
            yield Month(
                account, period, version, _costs(theirs),
                _invoice(row for row in invoices if row["BillingAccountId"] == account),
                [row for row in unpriced if row["billing_account_id"] == account],
                next((row["BillingAccountName"] for row in theirs if row.get("BillingAccountName")), None),
                _rates(theirs),
            )  # fmt: skip


def _table(version: Version, name: str) -> list[Row]:
    found: list[Row] = pq.read_table(version.folder / f"{name}.parquet", partitioning=None).to_pylist()
    return found


def _rates(rows: Iterable[Row]) -> list[tuple[str, str, Decimal]]:
    """The exchange rates of the rows, as their unit prices in both currencies tell them, to six digits."""
    return sorted({
        (row["PricingCurrency"], row["BillingCurrency"], (row["ListUnitPrice"] / price).quantize(_RATE).normalize())
        for row in rows
        if row["PricingCurrency"] not in (None, row["BillingCurrency"]) and row["ListUnitPrice"]
        and (price := row["PricingCurrencyListUnitPrice"])
    })  # fmt: skip


def _costs(rows: Iterable[Row]) -> list[Row]:
    """The cost rows without sessions, colonies and queens, added up."""
    sums: dict[tuple[Any, ...], list[Decimal]] = {}
    with localcontext(prec=60):
        for row in rows:
            charge = "Rounding" if row["x_ReasonCode"] == "rounding" else row["ChargeCategory"]
            is_usage = row["ChargeCategory"] == "Usage"
            usual = f"{row['x_TokenType']} tokens of {row['x_Model']}" if is_usage else None
            said = None if row["ChargeDescription"] == usual else row["ChargeDescription"]
            key = (
                row["ChargePeriodStart"].astimezone(UTC).date(), charge,
                row["x_ReasonCode"] if row["ChargeClass"] else None, row["SubAccountId"], row["HostProviderName"],
                row["x_Model"], row.get("x_ModelBasis"), row["x_TokenType"], said, row["BillingCurrency"],
            )  # fmt: skip
            total = sums.setdefault(key, [Decimal(0)] * 4)
            measures = (
                row["ConsumedQuantity"] or Decimal(0),
                row["ListCost"],
                row["ContractedCost"],
                row["BilledCost"],
            )
            sums[key] = [a + b for a, b in zip(total, measures, strict=True)]
    names = COSTS_SCHEMA.names
    return [
        dict(zip(names, [*key, *amounts], strict=True))
        for key, amounts in sorted(sums.items(), key=lambda item: [(v is None, str(v)) for v in item[0]])
    ]


def _invoice(lines: Iterable[Row]) -> list[Row]:
    return [
        {
            "invoice": line["InvoiceId"], "line": line["InvoiceDetailId"], "charge": line["ChargeCategory"],
            "provider": json.loads(line["InvoiceDetailGrain"]).get("HostProviderName"),
            "model": json.loads(line["InvoiceDetailGrain"]).get("x_Model"), "currency": line["BillingCurrency"],
            "exact": line["x_ExactCost"], "payable": line["BilledCost"],
        }
        for line in lines
    ]  # fmt: skip


def _is_current(folder: Path, month: Month, before: Month | None, signed: Mapping[str, str] | None) -> bool:
    """Whether a folder is what its statement makes. `signed`: what the signed head names, None if there is no head."""
    path = folder / attestation.SOURCE
    try:
        data = path.read_bytes()
        said = json.loads(data)
        files = said.pop("files", None)
    except (OSError, ValueError, AttributeError):
        return False
    name = folder.relative_to(folder.parents[2]).as_posix()
    is_signed = signed is None or signed.get(name) == hashlib.sha256(data).hexdigest()
    return is_signed and said == _source(month, before) and files == attestation.hashes(folder)


def _source(month: Month, before: Month | None) -> dict[str, Any]:
    """Which statements the files were made from, and by which layout."""
    return {
        "statement": "/".join(month.version.folder.parts[-4:]), "manifest_sha256": month.version.manifest_sha256,
        "month_before": before.version.manifest_sha256 if before else None, "layout": 5,
    }  # fmt: skip


def _files(month: Month, before: Month | None) -> dict[str, bytes]:
    from pipelines.billing import customer_pdf  # reportlab: whoever reads statements has no use for it

    made = {
        "costs.csv": for_spreadsheets(COSTS_SCHEMA, month.costs),
        "costs.parquet": to_parquet(COSTS_SCHEMA, month.costs),
        "invoice.csv": for_spreadsheets(INVOICE_SCHEMA, month.invoice),
        "invoice.parquet": to_parquet(INVOICE_SCHEMA, month.invoice),
        "statement.xlsx": _workbook(month, before),
        "statement.html": customer_page.page(month),
        "statement.pdf": customer_pdf.pdf(month),
    }
    said = _source(month, before) | {
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in sorted(made.items())}
    }
    return made | {attestation.SOURCE: (json.dumps(said, indent=1, sort_keys=True) + "\n").encode()}


def for_spreadsheets(schema: pa.Schema, rows: Sequence[Row]) -> bytes:
    """CSV that LibreOffice and Excel open by a double click: UTF-8 with its mark, commas, CRLF, numbers in digits."""
    lines = csv.reader(io.StringIO(to_csv(schema, rows).decode(), newline=""))
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerows(lines)
    return b"\xef\xbb\xbf" + text.getvalue().encode()


def summary(month: Month, before: Month | None) -> list[tuple[str, Any]]:
    """The first sheet: what somebody who pays asks first."""
    manifest = month.version.manifest
    said: list[tuple[str, Any]] = [
        ("account", month.account), ("name", month.name or "-"),
        ("period", f"{month.period:%Y-%m}"), ("state", manifest["period_state"]),
        ("statement version", month.version.number), ("as of", manifest["generated_from"]["as_of"]),
    ]  # fmt: skip
    earlier = before.payable if before else {}
    for currency, (exact, payable) in sorted(month.payable.items()):
        said += [(f"exact ({currency})", exact), (f"payable ({currency})", payable)]
        if before:
            said.append((f"change to last month ({currency})", payable - earlier.get(currency, (0, Decimal(0)))[1]))
    with localcontext(prec=60):
        late = sum((row["billed_cost"] for row in month.costs if row["correction"]), Decimal(0))
        unpriced = sum(row["quantity"] for row in month.unpriced)
    said += [(f"one {pricing} in {billing}", rate) for pricing, billing, rate in month.rates]
    for currency, bases in manifest.get("model_basis", {}).items():  # earlier versions do not say it
        said += [
            (f"billed, model known by {basis} ({currency})", Decimal(sums["BilledCost"]))
            for basis, sums in bases.items()
        ]
    said += [("corrections of earlier months", late), ("tokens without a price", unpriced)]
    said.append(("models without a price", ", ".join(sorted({row["model"] for row in month.unpriced})) or "-"))
    said.append(("manifest sha256", month.version.manifest_sha256))
    return said


def _workbook(month: Month, before: Month | None) -> bytes:
    """The month as a workbook of three sheets; the same bytes for the same statement."""
    from openpyxl import Workbook
    from openpyxl.styles import Font

    book = Workbook()
    first = book.active
    first.title = "Summary"
    for name, value in summary(month, before):
        first.append([name, _cell(value)])
    first.column_dimensions["A"].width, first.column_dimensions["B"].width = 34, 48
    for title, schema, rows in (("Invoice", INVOICE_SCHEMA, month.invoice), ("Costs", COSTS_SCHEMA, month.costs)):
        sheet = book.create_sheet(title)
        sheet.append(schema.names)
        for row in rows:
            sheet.append([_cell(row[name]) for name in schema.names])
        for cell in sheet[1]:
            cell.font = Font(bold=True)
        sheet.freeze_panes = "A2"
        for column in sheet.columns:
            sheet.column_dimensions[column[0].column_letter].width = min(
                max(len(str(cell.value or "")) for cell in column) + 2, 60
            )
    fixed = datetime.fromisoformat(month.version.manifest["generated_from"]["as_of"]).replace(tzinfo=None)
    book.properties.creator, book.properties.created, book.properties.modified = "apiary", fixed, fixed
    sink = io.BytesIO()
    book.save(sink)
    return _without_times(sink.getvalue(), fixed)


def _without_times(data: bytes, fixed: datetime) -> bytes:
    """The same workbook with one time on all its parts: a zip file holds when it was written."""
    sink = io.BytesIO()
    stamp = (max(fixed.year, 1980), fixed.month, fixed.day, fixed.hour, fixed.minute, fixed.second)
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as new:
        for name in sorted(old.namelist()):
            content = old.read(name)
            if name == "docProps/core.xml":
                modified = f"{fixed:%Y-%m-%dT%H:%M:%SZ}".encode()
                content = re.sub(rb"(<dcterms:modified[^>]*>)[^<]*", rb"\g<1>" + modified, content)
            new.writestr(zipfile.ZipInfo(name, stamp), content)
    return sink.getvalue()


def _cell(value: Any) -> Any:
    """A value as a cell: numbers as numbers, text that no spreadsheet would run."""
    return harmless(value) if isinstance(value, str) else value
