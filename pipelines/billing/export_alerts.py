"""Statements that are missing, late or held back: one row each, for a check and for messages to people.

The rows stand in `exports/alerts.json`. Does not belong here: telling people (alert_messages.py), writing statements
(exports.py), judging checks (gate.py).
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Literal

from pipelines.billing import periods
from pipelines.billing.exports import ExportContext, folder_name
from pipelines.billing.gate import failed, held_back
from pipelines.contract.numbers import pluralize
from pipelines.home import replace_file

FILE = "alerts.json"
DUE_AFTER = timedelta(days=4)  # a month's first statement is written on the fourth, once late usage had its time
Kind = Literal["missing", "late", "held_back"]


@dataclass(frozen=True)
class Alert:
    """One statement that somebody waits for. `usage_date` is None for a month's."""

    kind: Kind
    billing_period: str
    usage_date: str | None
    account: str | None
    found: str


def find(export: ExportContext, accounts: Sequence[str]) -> list[Alert]:
    """What is wrong with the statements as they lie there now, in a fixed order.

    `accounts`: those that have a month to bill. Reads the warehouse, the manifests and `as_of`, no clock.
    """
    return [*_days(export), *_months(export, accounts), *_held(export)]


def write(exports: Path, alerts: Sequence[Alert]) -> None:
    """Put the rows beside the statements; an empty list says that all is well. Raises OSError."""
    replace_file(exports / FILE, (json.dumps([asdict(alert) for alert in alerts], indent=1) + "\n").encode())


def read(exports: Path) -> list[Alert]:
    """The rows as they were written last; none before the first run. Raises OSError, ValueError."""
    path = exports / FILE
    return [Alert(**row) for row in json.loads(path.read_bytes())] if path.exists() else []


def _days(export: ExportContext) -> list[Alert]:
    """Days that have rows and no statement, or one that is older than their rows."""
    rows = export.connection.execute(
        """
        SELECT billing_period, usage_date, count(*) FROM marts.export_focus_daily
        WHERE "BillingAccountId" <> 'UNATTRIBUTED' AND usage_date < $1 GROUP BY ALL ORDER BY ALL
        """,
        [export.as_of.date()],
    ).fetchall()
    held = held_back(export.checks)
    found = []
    for period, day, count in rows:
        folder = export.statements.root / "daily" / f"billing_period={period:%Y-%m}" / f"usage_date={day.isoformat()}"
        last = export.statements.last(folder)
        if last is None:
            if not _is_of_an_earlier_version(export, period):
                text = f"{pluralize(count, 'row')}, no statement"
                found.append(Alert("missing", f"{period:%Y-%m}", day.isoformat(), None, text))
        elif last.manifest["rows"] != count and not held and export.book.status(period) != "closed":
            text = f"{pluralize(count, 'row')}, {last.manifest['rows']} of them in {last.folder.name}"
            found.append(Alert("late", f"{period:%Y-%m}", day.isoformat(), None, text))
    return found


def _is_of_an_earlier_version(export: ExportContext, period: date) -> bool:
    """Whether one statement of all accounts finished the period: then its days are not looked at any more."""
    whole = export.statements.last(export.statements.root / "monthly" / f"billing_period={period:%Y-%m}")
    return whole is not None and whole.manifest["period_state"] == "closed"


def _months(export: ExportContext, accounts: Sequence[str]) -> list[Alert]:
    """Accounts without a statement of the month that has ended, once it is due."""
    period = (export.as_of.date().replace(day=1) - timedelta(days=1)).replace(day=1)
    if export.as_of < periods.end_of(period) + DUE_AFTER:
        return []
    month = export.statements.root / "monthly" / f"billing_period={period:%Y-%m}"
    return [
        Alert("missing", f"{period:%Y-%m}", None, account, "the month has ended, no statement")
        for account in accounts
        if export.statements.last(month / f"account={folder_name(account)}") is None
        and export.statements.last(month) is None
    ]


def _held(export: ExportContext) -> list[Alert]:
    """Accounts whose statements a check of their own holds back."""
    period = f"{export.as_of:%Y-%m}"
    return [
        Alert("held_back", period, None, account,
              "; ".join(f"{check.name} is {check.found}" for check in failed(export.checks, account)))
        for account in held_back(export.checks)
    ]  # fmt: skip
