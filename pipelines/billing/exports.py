"""Which statements there are and what is in them: one per UTC day of a period, and one per account and period.

A statement of an open period is a snapshot: when its rows change, the next version stands beside the last one and says
which rows differ and why. A closed period is finished once and never looked at again.
Does not belong here: writing a version (statements.py), the rows (models/statements), what may leave (gate.py).
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, localcontext
from functools import cache, cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

import duckdb
import pyarrow.parquet as pq
import yaml

from pipelines import __version__
from pipelines.billing import books, focus, periods, summary
from pipelines.billing.books import UNATTRIBUTED
from pipelines.billing.gate import Check, GateError, Override, admit, held_back
from pipelines.billing.periods import Book
from pipelines.billing.statements import Dataset, Row, StatementStore, Version, cell, to_csv
from pipelines.contract.numbers import plain, pluralize
from pipelines.errors import ExpectedError
from pipelines.home import MODELS, ROOT

GAP_DAYS = 92  # how far back a day without usage gets its empty export
COSTS = "focus_cost_and_usage"
HASH = "x_RowHash"
ORDER = ('"BillingAccountId"', '"ChargePeriodStart"', '"SubAccountId"', '"SkuId"', '"SkuMeter"', '"x_RowKey"')
UNPRICED_CELLS = ("model", "component", "currency", "rating_status", "quantity", "low_cost", "high_cost")
MEASURES = ("BilledCost", "ContractedCost", "EffectiveCost", "ListCost")


class RestatementError(ExpectedError):
    """A statement that was shown to somebody would change: it says what, and how to accept it."""


@dataclass(frozen=True)
class ExportContext:
    """What every statement of one run is made from."""

    connection: duckdb.DuckDBPyConnection
    statements: StatementStore
    book: Book
    as_of: datetime
    checks: Sequence[Check]
    issuer: str
    override: Override | None = None
    is_attested: bool = False  # a signed head names what is written: without it `apiary verify` finds a fault

    @cached_property
    def sources(self) -> dict[str, Any]:
        """What the rows come from, each as a hash: batches, books, code. Asked for once: the price book is long."""
        return {
            "batch_set_sha256": _batch_set(self.connection),
            "code_sha256": code_sha256(),
            "books_sha256": _books(self.connection),
            "price_book_sha256": _price_book(self.connection),
        }


@dataclass(frozen=True)
class Exported:
    """What became of one statement, and whether this run wrote it."""

    statement: str
    folder: Path
    rows: int
    is_new: bool


@dataclass(frozen=True)
class Acceptance:
    """Who has seen a restatement and takes it; `sha256` names what was seen."""

    sha256: str
    actor: str
    reason: str


def export_days(export: ExportContext) -> list[Exported]:
    """Bring the statements of all days up to date; those whose rows are unchanged stay as they are.

    Days without usage between days with usage are exported too, and days that lost theirs. The rows of an account that
    a check of its own holds back stay as they were, and the manifest names it. Raises GateError, OSError.
    """
    admit(export.checks, export.override)
    checked = _Checked.read(export.connection)
    done = [_export_day(export, period, day, checked) for period, day in _days(export)]
    checked.write(export.connection)
    return done


def export_month(export: ExportContext, period: date, account: str, *, accepted: Acceptance | None = None) -> Exported:
    """Bring the statement of one account's period up to date.

    Once a month is closing its statement has been shown to somebody: another version needs an acceptance of exactly
    the rows that differ. Raises GateError, RestatementError, OSError.
    """
    admit(export.checks, export.override, account)
    statement = _monthly(export, period, account)
    last = export.statements.last(statement)
    if last and _is_finished(export, last, account):
        return Exported(f"{period:%Y-%m}", last.folder, last.manifest["rows"], is_new=False)
    rows = period_rows(export.connection, period, account)
    invoices = _invoice_rows(export, period, account)
    rows += _rounding_rows(rows, invoices)
    unpriced = _unpriced(export.connection, period, periods.after(period), account)
    status = export.book.status(period, account)
    if last and _is_same(last, rows, unpriced) and last.manifest["period_state"] == status:
        return Exported(f"{period:%Y-%m}", last.folder, len(rows), is_new=False)
    restated = restatement(last, rows)
    if restated and status == "closing":
        _require_acceptance(period, account, restated, accepted)
    start, end = _instant(period), periods.end_of(period)
    datasets = [
        Dataset(COSTS, focus.COST_AND_USAGE, rows),
        Dataset("focus_billing_period", focus.BILLING_PERIOD, [_period_row(export, period, account)]),
        Dataset("focus_invoice_detail", focus.INVOICE_DETAIL, invoices),
        Dataset("unpriced", focus.UNPRICED, unpriced),
        Dataset("restatement", focus.RESTATEMENT, restated),
    ]
    about = {
        **_about(export, period, rows, restated, accepted, account=account), "export": "focus_monthly",
        "rounding": "per_invoice", "payable": payable(invoices),
    }  # fmt: skip
    metadata = focus.metadata(
        issuer=export.issuer, created_at=export.as_of, complete=status == "closed", start=start, end=end
    )
    page = summary.page(about, rows, invoices, unpriced)
    files = {"focus_metadata.json": metadata, "summary.html": page}
    version = export.statements.write(statement, datasets, about, files)
    return Exported(f"{period:%Y-%m}", version.folder, len(rows), is_new=True)


def export_months(
    export: ExportContext, period: date, accounts: Iterable[str]
) -> tuple[list[Exported], dict[str, str]]:
    """The statements of several accounts; of those that are held back, by account, what holds them.

    Raises OSError, and GateError if a check holds back everybody.
    """
    admit(export.checks, export.override)
    done, held = [], {}
    for account in accounts:
        try:
            done.append(export_month(export, period, account))
        except (GateError, RestatementError) as error:
            held[account] = str(error)
    return done, held


def payable(invoices: Sequence[Row]) -> dict[str, dict[str, str]]:
    """What each invoice comes to: currency, exact sum and payable amount, by invoice."""
    found: dict[str, dict[str, Any]] = {}
    with localcontext(prec=60):
        for line in invoices:
            said = found.setdefault(
                line["InvoiceId"], {"currency": line["BillingCurrency"], "exact": Decimal(0), "payable": Decimal(0)}
            )
            said["exact"] += line["x_ExactCost"]
            said["payable"] += line["BilledCost"]
    return {
        invoice: {name: plain(v) if isinstance(v, Decimal) else v for name, v in said.items()}
        for invoice, said in sorted(found.items())
    }


def month_restatement(export: ExportContext, period: date, account: str) -> list[Row]:
    """What another version of a month's statement would change; nothing if there is none yet."""
    rows = period_rows(export.connection, period, account)
    rows += _rounding_rows(rows, _invoice_rows(export, period, account))
    return restatement(export.statements.last(_monthly(export, period, account)), rows)


def folder_name(account: str) -> str:
    """An account's id as the name of a folder: whatever it holds, it is one name and no path."""
    name = quote(account, safe="")
    return name if not name.startswith(".") else f"%2E{name[1:]}"


def issuer() -> str:
    """Who sends the invoices, as the models are told: the variable of the dbt project."""
    project = yaml.safe_load((ROOT / "dbt_project" / "dbt_project.yml").read_text("utf-8"))
    return str(project["vars"]["invoice_issuer"])


def period_rows(connection: duckdb.DuckDBPyConnection, period: date, account: str | None = None) -> list[Row]:
    """The cost rows that are booked in a period, in their fixed order, without rounding: of all accounts, or of one."""
    if account is not None:
        return _rows(connection, 'billing_period = ? AND "BillingAccountId" = ?', [period, account])
    return _rows(connection, "billing_period = ?", [period])


def totals(rows: Iterable[Row]) -> dict[str, dict[str, dict[str, str]]]:
    """Control totals by currency and charge category: rows, and each cost to its last digit."""
    sums: dict[tuple[str, str], dict[str, Decimal]] = {}
    with localcontext(prec=60):  # sums of 28 digits, the usual precision, would be rounded
        for row in rows:
            group = sums.setdefault(
                (row["BillingCurrency"], row["ChargeCategory"]), dict.fromkeys(("rows", *MEASURES), Decimal(0))
            )
            group["rows"] += 1
            for name in MEASURES:
                group[name] += row[name]
    found: dict[str, dict[str, dict[str, str]]] = {}
    for (currency, category), group in sorted(sums.items()):
        found.setdefault(currency, {})[category] = {name: plain(amount) for name, amount in group.items()}
    return found


def model_basis(rows: Iterable[Row]) -> dict[str, dict[str, dict[str, str]]]:
    """Usage by currency and by how its model is known: tokens and billed cost, to the last digit."""
    sums: dict[tuple[str, str], dict[str, Decimal]] = {}
    with localcontext(prec=60):
        for row in rows:
            if row["x_ModelBasis"] is not None:
                group = sums.setdefault(
                    (row["BillingCurrency"], row["x_ModelBasis"]), {"tokens": Decimal(0), "BilledCost": Decimal(0)}
                )
                group["tokens"] += row["ConsumedQuantity"] or Decimal(0)
                group["BilledCost"] += row["BilledCost"]
    found: dict[str, dict[str, dict[str, str]]] = {}
    for (currency, basis), group in sorted(sums.items()):
        found.setdefault(currency, {})[basis] = {name: plain(amount) for name, amount in group.items()}
    return found


def totals_sha256(rows: Iterable[Row]) -> str:
    """The control totals as one hash: what whoever closes a period signs."""
    return hashlib.sha256(json.dumps(totals(rows), sort_keys=True).encode()).hexdigest()


def restatement(last: Version | None, rows: Sequence[Row]) -> list[Row]:
    """Every row that differs from a version, in the order of keys: before, after, cause. Nothing without a version."""
    if last is None:
        return []
    before, after = _stored(last), {row["x_RowKey"]: row for row in rows}
    found: list[Row] = []
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key), after.get(key)
        if old is not None and new is not None and _line(old) == _line(new, old):
            continue
        some = new or old or {}
        found.append({
            "row_key": key,
            "change": "added" if old is None else "removed" if new is None else "changed",
            "cause": _cause(old, new),
            "currency": some["BillingCurrency"],
            "billed_cost_before": old["BilledCost"] if old else None,
            "billed_cost_after": new["BilledCost"] if new else None,
            "quantity_before": old["PricingQuantity"] if old else None,
            "quantity_after": new["PricingQuantity"] if new else None,
            "row_before": _line(old) if old else None,
            "row_after": _line(new) if new else None,
        })  # fmt: skip
    return found


def row_sha256(row: Row) -> str:
    """The other cells of a row, as the CSV file has them, as one hash: x_RowHash."""
    return hashlib.sha256(_line(row).encode()).hexdigest()


def restatement_sha256(restated: Sequence[Row]) -> str:
    """The name of a restatement: what an acceptance refers to."""
    return hashlib.sha256(to_csv(focus.RESTATEMENT, restated)).hexdigest()


@dataclass
class _Checked:
    """Which versions of days' statements were compared with which rows: what did not change is not read again."""

    now: dict[tuple[date, date], str]
    before: dict[tuple[date, date], tuple[str, str]]
    found: dict[tuple[date, date], tuple[str, str]]

    @classmethod
    def read(cls, connection: duckdb.DuckDBPyConnection) -> "_Checked":
        """What is known, and what the rows are now."""
        connection.execute(
            "CREATE TABLE IF NOT EXISTS billing.checked_statements"
            " (billing_period DATE, usage_date DATE, manifest_sha256 VARCHAR, fingerprint VARCHAR)"
        )
        known = connection.execute("FROM billing.checked_statements").fetchall()
        before = {(period, day): (manifest, fingerprint) for period, day, manifest, fingerprint in known}
        return cls(_day_fingerprints(connection), before, {})

    def fingerprint(self, period: date, day: date) -> str:
        """Of the rows of a day, and of the code that makes a statement of them."""
        return f"{code_sha256()} {duckdb.__version__} {self.now.get((period, day), '')}"

    def is_same(self, period: date, day: date, last: Version) -> bool:
        """Whether a version was compared with these very rows already."""
        is_same = self.before.get((period, day)) == (last.manifest_sha256, self.fingerprint(period, day))
        if is_same:
            self.note(period, day, last)
        return is_same

    def note(self, period: date, day: date, version: Version) -> None:
        """A version holds what the rows are now."""
        self.found[period, day] = (version.manifest_sha256, self.fingerprint(period, day))

    def write(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Keep what was found."""
        connection.execute("BEGIN")
        connection.execute("DELETE FROM billing.checked_statements")
        if self.found:
            rows = [[*key, *value] for key, value in sorted(self.found.items())]
            connection.executemany("INSERT INTO billing.checked_statements VALUES (?, ?, ?, ?)", rows)
        connection.execute("COMMIT")


def _day_fingerprints(connection: duckdb.DuckDBPyConnection) -> dict[tuple[date, date], str]:
    """By period and day a hash of what its statement holds: every cell as text, with its length; NULL is none."""
    costs = _cells(name for name in focus.COST_AND_USAGE.names if name != HASH)
    unpriced = _cells(["tenant_id", "billing_account_id", *UNPRICED_CELLS])
    found = connection.execute(
        f"""
        WITH costs AS (
            SELECT billing_period, usage_date, {costs} AS line FROM marts.export_focus_daily
        ),
        unpriced AS (
            SELECT CAST(date_trunc('month', usage_date) AS DATE) AS billing_period, usage_date, {unpriced} AS line
            FROM marts.fct_rated_lines
            WHERE (billed_cost IS NULL OR billing_account_id = '{UNATTRIBUTED}') AND quantity > 0
        )
        SELECT billing_period, usage_date, sha256(string_agg(line, chr(10) ORDER BY line))
        FROM (FROM costs UNION ALL BY NAME SELECT 'unpriced ' || line AS line, * EXCLUDE (line) FROM unpriced)
        GROUP BY ALL
        """
    ).fetchall()
    return {(period, day): digest for period, day, digest in found}


def _cells(names: Iterable[str]) -> str:
    """SQL of a row's cells as one text."""
    texts = [f'CAST("{name}" AS VARCHAR)' for name in names]
    return "concat(" + ", ".join(f"coalesce(length({text}) || ':' || {text}, '-')" for text in texts) + ")"


def _export_day(export: ExportContext, period: date, day: date, checked: _Checked) -> Exported:
    name = f"billing_period={period:%Y-%m}"
    statement = export.statements.root / "daily" / name / f"usage_date={day.isoformat()}"
    last = export.statements.last(statement)
    held = () if export.override else held_back(export.checks)
    if last and not held and checked.is_same(period, day, last):
        return Exported(day.isoformat(), last.folder, last.manifest["rows"], is_new=False)
    rows = [
        row
        for row in _rows(export.connection, "billing_period = ? AND usage_date = ?", [period, day])
        if row["BillingAccountId"] not in held
    ]
    if held and last:
        empty = dict.fromkeys(focus.COST_AND_USAGE.names)  # an older version may lack a column
        rows += [_hashed(empty | row) for row in _stored(last).values() if row["BillingAccountId"] in held]
        rows.sort(key=_place)
    unpriced = _unpriced(export.connection, day, day + timedelta(days=1)) if day.replace(day=1) == period else []
    if last and _is_same(last, rows, unpriced):
        if not held:
            checked.note(period, day, last)
        return Exported(day.isoformat(), last.folder, len(rows), is_new=False)
    restated = restatement(last, rows)
    datasets = [
        Dataset(COSTS, focus.COST_AND_USAGE, rows),
        Dataset("unpriced", focus.UNPRICED, unpriced),
        Dataset("restatement", focus.RESTATEMENT, restated),
    ]
    about = {
        **_about(export, period, rows, restated, None), "export": "focus_daily", "usage_date": day.isoformat(),
        "held_back": list(held),
    }  # fmt: skip
    version = export.statements.write(statement, datasets, about, {})
    if not held:
        checked.note(period, day, version)
    return Exported(day.isoformat(), version.folder, len(rows), is_new=True)


def _days(export: ExportContext) -> list[tuple[date, date]]:
    """The statements of days to look at: what has rows, what had some, and the days between that have none."""
    found: set[tuple[date, date]] = set(
        export.connection.execute(
            """
            SELECT DISTINCT billing_period, usage_date FROM marts.export_focus_daily
            UNION SELECT DISTINCT CAST(date_trunc('month', usage_date) AS DATE), usage_date FROM marts.fct_rated_lines
            WHERE billed_cost IS NULL AND quantity > 0
            """
        ).fetchall()
    )
    for folder in (export.statements.root / "daily").glob("billing_period=*/usage_date=*"):
        month, day = (part.partition("=")[2] for part in folder.parts[-2:])
        found.add((periods.month_of(month), date.fromisoformat(day)))
    own = [day for period, day in found if day.replace(day=1) == period]
    if own:
        # A clock that is wrong by years must not fill the years between with empty days.
        today = export.as_of.date()
        first = max(min(own), today - timedelta(days=GAP_DAYS))
        between = [first + timedelta(days=number) for number in range((min(max(own), today) - first).days + 1)]
        months = {day.replace(day=1) for day in between}
        # A month before the first of the book was never billed by it.
        first_booked = min((item.period for item in export.book.transitions), default=None)
        looked_at = {month for month in months if first_booked is None or month >= first_booked}
        found |= {(day.replace(day=1), day) for day in between if day.replace(day=1) in looked_at}
    finished = {period for period in {period for period, _ in found} if _is_period_finished(export, period)}
    return sorted(item for item in found if item[0] not in finished)


def _is_period_finished(export: ExportContext, period: date) -> bool:
    """Whether the statements of all accounts with rows of a period are written in their closed form."""
    accounts = {
        account
        for (account,) in export.connection.execute(
            'SELECT DISTINCT "BillingAccountId" FROM marts.export_focus_daily WHERE billing_period = ?', [period]
        ).fetchall()
    } - {UNATTRIBUTED}
    whole = export.statements.last(_monthly(export, period, None))
    if not accounts and whole is None:
        return False
    versions = {account: export.statements.last(_monthly(export, period, account)) for account in accounts}
    return all(last is not None and _is_finished(export, last, account) for account, last in versions.items())


def _status_of_all(export: ExportContext, period: date) -> str:
    """The state of a period for a file that holds all accounts: closed once it is closed for each."""
    named = {account for item in export.book.transitions if item.period == period for account in item.accounts or ()}
    found: set[str] = {export.book.status(period, account) for account in named} or {export.book.status(period)}
    return found.pop() if len(found) == 1 else "closing"


def _monthly(export: ExportContext, period: date, account: str | None) -> Path:
    """The folder of a statement. An earlier version wrote one for all accounts: as long as it is the closed form of an
    account's month, it is its statement."""
    month = export.statements.root / "monthly" / f"billing_period={period:%Y-%m}"
    if account is None:
        return month
    own = month / f"account={folder_name(account)}"
    whole = export.statements.last(month)
    is_whole = export.statements.last(own) is None and whole is not None and _is_finished(export, whole, account)
    return month if is_whole else own


def _is_finished(export: ExportContext, last: Version, account: str) -> bool:
    """Whether the closed form of an account's period is written: then nothing of it is ever written again."""
    period = periods.month_of(last.manifest["billing_period"])
    is_closed = export.book.status(period, account) == "closed"
    return is_closed and list(last.manifest["seals"]) == export.book.seals_of(period, account)


def _is_same(last: Version, rows: Sequence[Row], unpriced: Sequence[Row]) -> bool:
    """Whether a version holds these rows: those with a cost, and those that wait for one."""
    contents = {COSTS: to_csv(focus.COST_AND_USAGE, rows), "unpriced": to_csv(focus.UNPRICED, unpriced)}
    return all(last.sha256_of(f"{name}.csv") == hashlib.sha256(data).hexdigest() for name, data in contents.items())


def _require_acceptance(period: date, account: str, restated: Sequence[Row], accepted: Acceptance | None) -> None:
    digest = restatement_sha256(restated)
    if accepted is not None and digest.startswith(accepted.sha256) and len(accepted.sha256) >= 12:
        if accepted.actor.strip() and accepted.reason.strip():
            return
        raise RestatementError("an acceptance needs a name and a reason: --actor, --reason")
    with localcontext(prec=60):
        change = sum(
            ((row["billed_cost_after"] or Decimal(0)) - (row["billed_cost_before"] or Decimal(0)) for row in restated),
            Decimal(0),
        )
    raise RestatementError(
        f"the statement of {account} for {period:%Y-%m} would change: {pluralize(len(restated), 'row')}, billed cost by"
        f" {plain(change)}; see `apiary export restatement {period:%Y-%m} --account {account}`, then accept it with"
        f" --accept {digest[:12]}"
    )


def _about(
    export: ExportContext, period: date, rows: Sequence[Row], restated: Sequence[Row], accepted: Acceptance | None, *,
    account: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    status = export.book.status(period, account) if account else _status_of_all(export, period)
    seals = (
        export.book.seals_of(period, account) if account else [s for month, s in export.book.seals if month == period]
    )
    return {
        "billing_account_id": account,
        "focus_version": focus.FOCUS_VERSION,
        "billing_period": f"{period:%Y-%m}",
        "period_state": status,
        "complete": status == "closed",
        "mode": "snapshot",
        "attested": export.is_attested,
        "seals": seals,
        "generated_from": {
            "apiary_version": __version__,
            "as_of": export.as_of.astimezone(UTC).isoformat(),
            **export.sources,
        },
        "rows": len(rows),
        "totals": totals(rows),
        "model_basis": model_basis(rows),
        "checks": [check.told for check in export.checks],
        "override": export.override.told(export.checks) if export.override else None,
        "restatement": {
            "rows": len(restated),
            "sha256": restatement_sha256(restated),
            "accepted_by": accepted.actor if accepted and restated else None,
            "reason": accepted.reason if accepted and restated else None,
        },
    }


def _rows(connection: duckdb.DuckDBPyConnection, where: str, values: Sequence[object]) -> list[Row]:
    names = [name for name in focus.COST_AND_USAGE.names if name != HASH]
    cursor = connection.execute(
        f"SELECT {', '.join(names)} FROM marts.export_focus_daily WHERE {where} ORDER BY {', '.join(ORDER)}",
        list(values),
    )
    return [_hashed(dict(zip(names, row, strict=True))) for row in cursor.fetchall()]


def _place(row: Row) -> tuple[Any, ...]:
    """A row's place in its file, as the warehouse orders it: an empty cell comes last."""
    return tuple((row[name.strip('"')] is None, row[name.strip('"')] or "") for name in ORDER)


def _hashed(row: Row) -> Row:
    return row | {HASH: row_sha256(row)}


def _unpriced(connection: duckdb.DuckDBPyConnection, first: date, end: date, account: str | None = None) -> list[Row]:
    cursor = connection.execute(
        """
        SELECT billing_account_id, tenant_id, model, component, currency, rating_status, count(*) AS lines,
            CAST(sum(quantity) AS BIGINT) AS quantity, sum(low_cost) AS low_exposure, sum(high_cost) AS high_exposure
        FROM marts.fct_rated_lines
        WHERE (billed_cost IS NULL OR billing_account_id = $4) AND quantity > 0
            AND usage_date >= $1 AND usage_date < $2 AND ($3 IS NULL OR billing_account_id = $3)
        GROUP BY ALL ORDER BY ALL
        """,
        [first, end, account, UNATTRIBUTED],
    )
    names = focus.UNPRICED.names
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _invoice_rows(export: ExportContext, period: date, account: str) -> list[Row]:
    cursor = export.connection.execute(
        "SELECT invoice_id, invoice_detail_id, currency, charge_category, provider_name, model,"
        " line_count, exact_amount, rounded_amount, rounding_delta FROM marts.fct_invoice_lines"
        " WHERE billing_period = ? AND billing_account_id = ? ORDER BY invoice_detail_id",
        [period, account],
    )
    closed = export.book.status(period, account) == "closed"
    last = export.book.last(period, account)
    rows: list[Row] = []
    for invoice, detail, currency, category, provider, model, lines, exact, rounded, delta in cursor.fetchall():
        rows.append(dict.fromkeys(focus.INVOICE_DETAIL.names) | {
            "BilledCost": rounded, "BillingAccountId": account, "BillingCurrency": currency,
            "BillingPeriodEnd": periods.end_of(period), "BillingPeriodStart": _instant(period),
            "ChargeCategory": category, "InvoiceDetailCreated": export.as_of,
            "InvoiceDetailDescription": " ".join(filter(None, (category, provider, model))),
            "InvoiceDetailGrain": json.dumps({"x_Model": model, "HostProviderName": provider}),
            "InvoiceDetailId": detail, "InvoiceDetailLastUpdated": export.as_of, "InvoiceId": invoice,
            "InvoiceIssueDate": last.as_of if closed and last else None,
            "InvoiceIssueStatus": "Issued" if closed else "Draft", "InvoiceIssuerName": export.issuer,
            "PaymentCurrency": currency, "PaymentCurrencyBilledCost": rounded, "x_ExactCost": exact,
            "x_LineCount": lines, "x_RoundingDelta": delta,
        })  # fmt: skip
    return rows


def _rounding_rows(rows: Sequence[Row], invoices: Sequence[Row]) -> list[Row]:
    """One adjustment per line whose share of the invoice is not its exact amount: an invoice's rows are its amount."""
    examples = {row["InvoiceDetailId"]: row for row in rows}
    found: list[Row] = []
    for line in invoices:
        delta, example = line["x_RoundingDelta"], examples[line["InvoiceDetailId"]]
        if not delta:
            continue
        kept = (
            "BillingAccountId", "BillingAccountName", "BillingCurrency", "BillingPeriodEnd", "BillingPeriodStart",
            "HostProviderName", "InvoiceDetailId", "InvoiceId", "InvoiceIssuerName", "ServiceCategory", "ServiceName",
            "ServiceProviderName", "ServiceSubcategory", "x_TenantId",
        )  # fmt: skip
        found.append(_hashed(dict.fromkeys(focus.COST_AND_USAGE.names) | {name: example[name] for name in kept} | {
            "BilledCost": delta, "ContractedCost": delta, "EffectiveCost": delta, "ListCost": delta,
            "ChargeCategory": "Adjustment",
            "ChargeDescription": "Share of the invoice's rounding to the currency's minor unit",
            "ChargeFrequency": "One-Time", "ChargePeriodEnd": line["BillingPeriodEnd"],
            "ChargePeriodStart": line["BillingPeriodStart"], "x_EventCount": 0,
            "x_IncurredPeriod": f"{line['BillingPeriodStart']:%Y-%m}", "x_ReasonCode": "rounding",
            "x_RowKey": hashlib.md5(f"rounding|{line['InvoiceDetailId']}".encode(), usedforsecurity=False).hexdigest(),
            "x_TrustGrade": "self_reported",
        }))  # fmt: skip
    return found


def _period_row(export: ExportContext, period: date, account: str) -> Row:
    own = [item for item in export.book.of(account) if item.period == period]
    return {
        "BillingPeriodCreated": own[0].as_of if own else _instant(period),
        "BillingPeriodEnd": periods.end_of(period),
        "BillingPeriodLastUpdated": own[-1].as_of if own else _instant(period),
        "BillingPeriodStart": _instant(period),
        "BillingPeriodStatus": "Closed" if export.book.status(period, account) == "closed" else "Open",
        "InvoiceIssuerName": export.issuer,
    }


def _stored(version: Version) -> dict[str, Row]:
    table = pq.read_table(version.folder / f"{COSTS}.parquet", partitioning=None)
    return {row["x_RowKey"]: row for row in table.to_pylist()}


def _line(row: Row, like: Row | None = None) -> str:
    """A row as text, column by column; two rows are the same when their texts are.

    A version may be older than a column: beside such a row (`like`) the other one is told without it.
    """
    names = [name for name in focus.COST_AND_USAGE.names if name != HASH and name in (like or row)]
    return json.dumps([cell(row[name]) if row[name] is not None else None for name in names])


def _cause(old: Row | None, new: Row | None) -> str:
    if new is not None and new["x_ReasonCode"]:
        return str(new["x_ReasonCode"])
    if old is None:
        return "late_usage"
    if new is None:
        return "withdrawn"
    if old["PricingQuantity"] != new["PricingQuantity"]:
        return "quantity"
    # Usage that came late moves what is missing to a commitment: no price was changed.
    return "commitment" if new["ChargeCategory"] == "Adjustment" else "price"


def _batch_set(connection: duckdb.DuckDBPyConnection) -> str:
    """All batches that were loaded, as one hash: their manifests' hashes in order."""
    found = connection.execute(
        "SELECT sha256(coalesce(string_agg(manifest_sha256, ',' ORDER BY manifest_sha256), '')) FROM wire.batches"
        " WHERE status = 'loaded'"
    ).fetchone()
    return str(found[0]) if found else ""


def _price_book(connection: duckdb.DuckDBPyConnection) -> str:
    """All prices and the decisions about them, as one hash."""
    found = connection.execute(
        """
        SELECT sha256(string_agg(line, chr(10) ORDER BY line)) FROM (
            SELECT CAST(prices AS VARCHAR) AS line FROM billing.price_book AS prices
            UNION ALL
            SELECT CAST(decisions AS VARCHAR) AS line FROM billing.price_decisions AS decisions
        )
        """
    ).fetchone()
    return str(found[0]) if found and found[0] else hashlib.sha256(b"").hexdigest()


def _books(connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """Every book that amounts rest on, each as one hash of its rows."""
    found = {}
    for book in books.BOOKS:
        row = connection.execute(
            f"SELECT sha256(coalesce(string_agg(line, chr(10) ORDER BY line), '')) FROM"
            f" (SELECT CAST(book AS VARCHAR) AS line FROM billing.{book.name} AS book)"
        ).fetchone()
        found[book.name] = str(row[0]) if row else ""
    return found


@cache
def code_sha256() -> str:
    """The code that made the rows and the files, as one hash: the models, their macros and this part."""
    digest = hashlib.sha256()
    macros, billing = ROOT / "dbt_project" / "macros", Path(__file__).parent
    for folder, pattern in ((MODELS, "*.sql"), (macros, "*.sql"), (billing, "*.py")):
        for path in sorted(folder.rglob(pattern)):
            name = Path(folder.name, path.relative_to(folder)).as_posix()  # the same where it is installed
            digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _instant(day: date) -> datetime:
    return datetime.combine(day, datetime.min.time(), UTC)
