"""Closes a month: says for each account what is still in the way and how it is settled, freezes its lines, writes the
transition into the book.

Does not belong here: the rules of transitions (periods.py), the files of the closed month (exports.py).
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any

import duckdb

from pipelines.billing import exports, ledger, periods
from pipelines.billing.books import UNATTRIBUTED
from pipelines.billing.gate import Check, failed
from pipelines.billing.ledger import LINES
from pipelines.billing.periods import (
    Book,
    Condition,
    NotReadyError,
    PeriodError,
    Status,
    Transition,
    unmet_conditions,
)
from pipelines.contract.numbers import plain, pluralize
from pipelines.errors import ExpectedError
from pipelines.failpoints import fp

MATERIAL = Decimal("0.01")  # what an open exception may come to: less than the smallest payable amount
SIGNATURE_LENGTH = 12  # hexadecimal digits of the totals' hash that whoever closes must name: fewer could be guessed
# What may be passed over by name and reason, by kind of exception. A line without a price may not: it would be missing.
QUESTIONS = {
    "conflict": "lines are of records that came again with other facts",
    "future_dated": "turns are held: they claim to be later than their arrival",
    "implausible": "lines are of turns of more than plausible tokens or cost",
    "refused": "turns stayed on a device because their numbers are none",
    "cache_convention_unknown": "lines are of sources of whom nobody said how they count cache tokens",
}
SETTLED_BY = {
    "future_dated": "apiary held list, apiary held release; or --waive 'future_dated=REASON'",
    "cache_convention_unknown": "apiary prices cache-convention; or --waive 'cache_convention_unknown=REASON'",
}


class SignatureError(ExpectedError):
    """The totals are not those that were signed."""


@dataclass(frozen=True)
class Payable:
    """What one invoice of an account comes to. `parts`: its exact sum by FOCUS charge category."""

    invoice_id: str
    currency: str
    exact: Decimal
    payable: Decimal
    parts: Mapping[str, Decimal] = field(default_factory=dict)


@dataclass(frozen=True)
class Readiness:
    """The checklist of one account's period, and the totals that closing it would sign."""

    account: str
    status: Status
    conditions: tuple[Condition, ...]
    totals: Mapping[str, Mapping[str, Mapping[str, str]]]
    payables: tuple[Payable, ...]

    def unmet(self, waived: Mapping[str, str] = MappingProxyType({})) -> list[Condition]:
        """What stands in the way."""
        return unmet_conditions(self.conditions, waived)

    @property
    def told(self) -> dict[str, Any]:
        """For machines, and for the signature."""
        return {
            "account": self.account,
            "totals": self.totals,
            "payable": {p.invoice_id: [p.currency, plain(p.exact), plain(p.payable)] for p in self.payables},
        }


@dataclass(frozen=True)
class Closed:
    """What became of one step: the line of the book, and the accounts that were held back with what holds each."""

    transition: Transition
    held: tuple[Readiness, ...] = ()


def signature(ready: Iterable[Readiness]) -> str:
    """The totals and payable amounts of some accounts as one hash: what whoever closes their period signs."""
    told = [item.told for item in sorted(ready, key=lambda item: item.account)]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def require_signed(period: date, digest: str, signed: str) -> None:
    """Somebody has named these totals, and not only their first digits. Raises SignatureError."""
    if len(signed) < SIGNATURE_LENGTH or not digest.startswith(signed):
        raise SignatureError(
            f"the totals of {period:%Y-%m} are {digest[:SIGNATURE_LENGTH]}: look at them with `apiary period status"
            f" {period:%Y-%m}` and sign them with --sign {digest[:SIGNATURE_LENGTH]}"
        )


def watermark(connection: duckdb.DuckDBPyConnection, *, as_of: datetime) -> datetime:
    """Up to when usage is known: the latest event before `as_of`, or until when every device has reported; else 1970.

    A device reports also when it has nothing new: a fleet that is idle is known to be.
    """
    found = connection.execute(
        """
        SELECT greatest(
            (SELECT max(occurred_at) FROM marts.fct_llm_turns WHERE occurred_at <= $1),
            (SELECT min(last_report) FROM (
                SELECT max(received_at) AS last_report FROM wire.batches
                WHERE received_at <= $1 AND status <> 'quarantined' GROUP BY tenant_id, device_id
            ))
        )
        """,
        [as_of],
    ).fetchone()
    return found[0].astimezone(UTC) if found and found[0] else datetime(1970, 1, 1, tzinfo=UTC)


def accounts_of(connection: duckdb.DuckDBPyConnection, book: Book, period: date) -> list[str]:
    """The accounts that have a month: those that are valid in it, before and after it, or have rows or transitions of
    it: months close in their order, also those in which an account had no tenant."""
    found = connection.execute(
        """
        SELECT billing_account_id FROM marts.dim_billing_accounts GROUP BY billing_account_id
        HAVING min(valid_from) < $2 AND bool_or(valid_to IS NULL OR valid_to > $1)
        UNION SELECT "BillingAccountId" FROM marts.export_focus_daily WHERE billing_period = $1
        UNION SELECT billing_account_id FROM marts.fct_rated_lines
        WHERE billed_cost IS NULL AND quantity > 0 AND usage_date >= $1 AND usage_date < $2
        """,
        [period, periods.after(period)],
    ).fetchall()
    named = {item for line in book.transitions if line.period == period for item in line.accounts or ()}
    return sorted(({account for (account,) in found} | named) - {UNATTRIBUTED})


def accounts_to_close(connection: duckdb.DuckDBPyConnection, book: Book, period: date) -> list[str]:
    """The accounts on the checklist of a month: those that have it, and those of which something is left to bill: usage
    that was settled for later, or rows of an earlier month that is open. Also one whose next month this is, if it has
    later ones: they could not be closed before it."""
    later = connection.execute(
        """
        SELECT billing_account_id FROM marts.dim_billing_accounts WHERE valid_to IS NULL OR valid_to > $1
        UNION SELECT "BillingAccountId" FROM marts.export_focus_daily WHERE billing_period > $1
        """,
        [period],
    ).fetchall()
    named = {item for line in book.transitions if line.period > period for item in line.accounts or ()}
    frozen = {account: book.closed_through(account) for account in {account for (account,) in later} | named}
    next_ = {account for account, month in frozen.items() if month is not None and periods.after(month) == period}
    left = _unpriced(connection, period).keys() | _first_open(connection, book, period).keys()
    return sorted((next_ | left | set(accounts_of(connection, book, period))) - {UNATTRIBUTED})


def readiness(
    connection: duckdb.DuckDBPyConnection, book: Book, period: date, *, as_of: datetime, checks: Sequence[Check],
    accounts: Sequence[str] | None = None,
) -> list[Readiness]:  # fmt: skip
    """Every condition of closing, met or not, for each account. Reads the warehouse and `as_of`, no clock."""
    chosen = accounts_to_close(connection, book, period) if accounts is None else sorted(accounts)
    known = watermark(connection, as_of=as_of)
    first_open = _first_open(connection, book, period)
    found = _Found(
        silent=_silent_devices(connection, period, as_of=as_of), unpriced=_unpriced(connection, period),
        questions=_questions(connection, period), variances=_variances(connection, period),
        off=_rows_off(connection, period), charged_through=_charged_through(connection),
        payables=_payables(connection, period),
    )  # fmt: skip
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in exports.period_rows(connection, period):
        rows[row["BillingAccountId"]].append(row)
    ready = []
    for account in chosen:
        status = book.status(period, account)
        last = book.last(period, account)
        waiting = (
            periods.grace_over(last, as_of=as_of, watermark_at=known)
            if last is not None and last.after == "closing"
            else Condition("grace", False, "starts with the first `apiary period close`")
        )
        conditions = (
            waiting, _in_order(book, period, account, first_open.get(account)), *found.conditions(period, account),
            _gate(checks, account),
        )  # fmt: skip
        ready.append(
            Readiness(account, status, conditions, exports.totals(rows[account]), tuple(found.payables[account]))
        )
    return ready


def close(
    connection: duckdb.DuckDBPyConnection, folder: Path, period: date, *, actor: str, reason: str, as_of: datetime,
    checks: Sequence[Check], waived: Mapping[str, str], signed: str, accounts: Sequence[str] | None = None,
) -> Closed:  # fmt: skip
    """One step towards closed, for some accounts or all: open → closing, else closing → closed.

    An account that is not ready is held back and named; the others go. The lines are sealed before the book says so.
    Raises periods.PeriodError, NotReadyError if no account is ready, SignatureError, OSError.
    """
    path = ledger.book_path(folder)
    book = ledger.load(connection, folder)
    there = accounts_to_close(connection, book, period)
    chosen = there if accounts is None else sorted(set(accounts))
    if unknown := set(chosen) - set(there):
        raise PeriodError(f"{', '.join(sorted(unknown))}: no such account has a month {period:%Y-%m}")
    opened = [account for account in chosen if book.status(period, account) == "open"]
    first_open = _first_open(connection, book, period)
    orders = {account: _in_order(book, period, account, first_open.get(account)) for account in opened}
    in_order = [account for account in opened if not unmet_conditions([orders[account]], waived)]
    closing_ = [account for account in chosen if book.status(period, account) == "closing"]
    if in_order or (opened and not closing_):  # one that must close an earlier month first holds back nobody else
        transition = periods.start_closing(
            book, period, actor=actor, reason=reason, as_of=as_of, watermark_at=watermark(connection, as_of=as_of),
            accounts=in_order or opened,
        )  # fmt: skip
        if not in_order:
            found = "; ".join(f"{orders[account].found} ({account})" for account in opened)
            raise NotReadyError(f"{period:%Y-%m} cannot be closed: order: {found}")
        periods.write(path, transition)
        ledger.load(connection, folder)
        return Closed(transition)
    if not closing_:
        raise PeriodError(f"{period:%Y-%m} is closed already" if chosen else f"no account has a month {period:%Y-%m}")
    ready = readiness(connection, book, period, as_of=as_of, checks=checks, accounts=closing_)
    going = [item for item in ready if not item.unmet(waived)]
    held = tuple(item for item in ready if item.unmet(waived))
    if not going:
        reasons = "; ".join(f"{c.name}: {c.found} ({item.account})" for item in held for c in item.unmet(waived))
        raise NotReadyError(f"{period:%Y-%m} cannot be closed: {reasons}; see `apiary period status {period:%Y-%m}`")
    digest = signature(ready)
    require_signed(period, digest, signed)
    names = [item.account for item in going]
    sealed = ledger.seal(folder, pending(connection, period, names))
    fp("close.sealed")
    transition = periods.close(
        book, period, actor=actor, reason=reason, as_of=as_of, waived=waived, totals_sha256=digest, seal=sealed,
        conditions=[condition for item in going for condition in item.conditions], accounts=names,
    )  # fmt: skip
    periods.write(path, transition)
    fp("close.booked")
    ledger.load(connection, folder)
    return Closed(transition, held)


def pending(connection: duckdb.DuckDBPyConnection, period: date, accounts: Sequence[str]):  # type: ignore[no-untyped-def]
    """The lines of a period of some accounts that are in no sealed file yet, as an Arrow table of `ledger.LINES`."""
    return connection.execute(
        f"SELECT {', '.join(LINES.names)} FROM statements.int_billing__booked_lines"
        " WHERE billing_period = ? AND seal_seq IS NULL AND list_contains(?, billing_account_id)",
        [period, list(accounts)],
    ).to_arrow_table()


def unpriced_models(connection: duckdb.DuckDBPyConnection, period: date, account: str) -> list[str]:
    """The models of an account whose usage up to a period's end has no price and was not settled for it."""
    return [item.model for item in _unpriced(connection, period)[account]]


def worklist(connection: duckdb.DuckDBPyConnection, period: date) -> list[tuple[str, str, int, Decimal | None]]:
    """Usage of a period that no account pays for: tenant, model, tokens and list cost in USD, NULL without a price."""
    return connection.execute(
        """
        SELECT tenant_id, model, CAST(sum(quantity) AS BIGINT),
            CASE WHEN bool_and(list_cost IS NOT NULL OR quantity = 0) THEN sum(list_cost) END
        FROM marts.fct_rated_lines WHERE billing_account_id = ? AND usage_date >= ? AND usage_date < ?
        GROUP BY ALL ORDER BY ALL
        """,
        [UNATTRIBUTED, period, periods.after(period)],
    ).fetchall()


@dataclass(frozen=True)
class _Unpriced:
    model: str
    lines: int
    quantity: int
    exposure: Decimal
    is_unknown: bool
    has_no_price: bool
    exchange: list[str] | None
    """Pairs of currencies without a rate, like USD/EUR."""


@dataclass(frozen=True)
class _Found:
    """What one look at the warehouse found, by account."""

    silent: Mapping[str, int]
    unpriced: Mapping[str, list[_Unpriced]]
    questions: Mapping[tuple[str, str], tuple[int, Decimal, bool]]
    variances: Mapping[str, tuple[int, Decimal]]
    off: Mapping[str, tuple[Decimal, int]]
    charged_through: Mapping[str, date]
    payables: Mapping[str, list[Payable]]

    def conditions(self, period: date, account: str) -> list[Condition]:
        """The conditions of one account."""
        silent = self.silent.get(account, 0)
        models = self.unpriced[account]
        exposure = sum((item.exposure for item in models), Decimal(0))
        lines = sum(item.lines for item in models)
        names = ", ".join(item.model for item in models)
        conditions = [
            Condition(
                "arrivals", silent == 0, f"{pluralize(silent, 'device')} sent nothing since the month ended",
                can_be_waived=True,
                settled_by="a later run, or --waive 'arrivals=REASON'",
            ),
            Condition(
                "exceptions", exposure < MATERIAL and not any(item.is_unknown for item in models),
                f"{pluralize(lines, 'line has', 'lines have')} no price and may cost up to {plain(exposure)}"
                " in the account's currency"
                + (f": {names}" if names else ""),
                settled_by=f"{', '.join(_ways_to_price(models))}"
                f" or apiary period settle {period:%Y-%m} --account {account} --write-off|--late",
            ),
        ]  # fmt: skip
        for kind, words in QUESTIONS.items():
            count, worth, unknown = self.questions.get((account, kind), (0, Decimal(0), False))
            is_small = worth < MATERIAL and not unknown and kind not in ("conflict", "cache_convention_unknown")
            is_met = count == 0 or is_small
            most = "exposure unknown" if unknown else f"worth up to {plain(worth)}"
            conditions.append(
                Condition(kind, is_met, f"{count} {words}, {most}", can_be_waived=True,
                          settled_by=SETTLED_BY.get(kind, f"--waive '{kind}=REASON'"))
            )  # fmt: skip
        buckets, variance = self.variances.get(account, (0, Decimal(0)))
        conditions.append(
            Condition(
                "reconciliation", buckets == 0,
                pluralize(buckets, "bucket of its models differs", "buckets of its models differ")
                + f" from the providers' by {plain(variance)}", can_be_waived=True,
                settled_by="apiary reconcile show; or --waive 'reconciliation=REASON'",
            )
        )  # fmt: skip
        cost, off = self.off.get(account, (Decimal(0), 0))
        is_charged = period <= self.charged_through.get(account, date.max)
        found = f"off by {plain(cost)} and {pluralize(off, 'line')}: `apiary run` first" if cost or off else "equal"
        found = found if is_charged else "its plan is not charged yet: `apiary run` once the month is closing"
        conditions.append(
            Condition("lines_are_rows", not cost and not off and is_charged, found, settled_by="apiary run")
        )
        return conditions


def _ways_to_price(models: Sequence[_Unpriced]) -> Iterator[str]:
    """The commands that give usage its price."""
    if any(item.has_no_price for item in models) or not models:
        yield from ("apiary prices approve", "apiary prices alias")
    if any(item.model == "unknown" for item in models):
        yield "apiary model-policy set"
    for pair in sorted({pair for item in models for pair in item.exchange or ()}):
        yield f"apiary fx-rate set --pair {pair}"


def _first_open(connection: duckdb.DuckDBPyConnection, book: Book, period: date) -> dict[str, date]:
    """By account, the oldest month before a period that it has rows of and that was not closed with a later one."""
    rows = connection.execute(
        """
        SELECT DISTINCT "BillingAccountId", billing_period FROM marts.export_focus_daily WHERE billing_period < ?
        ORDER BY billing_period DESC
        """,
        [period],
    ).fetchall()
    frozen = {account: book.closed_through(account) or date.min for account in {name for name, _ in rows}}
    return {account: month for account, month in rows if month > frozen[account]}


def _in_order(book: Book, period: date, account: str, first_open: date | None) -> Condition:
    """Months close one after the other. Before its first one, an account may leave out those it never closes: what is
    used in them is then billed as late."""
    frozen = book.closed_through(account)
    first = periods.after(frozen) if frozen is not None else first_open
    if first is None or period <= first:
        return Condition("order", True, "in order")
    command = f"apiary month-end {first:%Y-%m} --account {account}"
    if frozen is not None:
        return Condition("order", False, f"{first:%Y-%m} comes first", settled_by=command)
    return Condition(
        "order", False, f"{first:%Y-%m} has rows and is open: they would be billed as late", can_be_waived=True,
        settled_by=f"{command}; or --waive 'order=REASON'",
    )  # fmt: skip


def _silent_devices(connection: duckdb.DuckDBPyConnection, period: date, *, as_of: datetime) -> dict[str, int]:
    """Devices of an account's tenants that were heard of before the end of the month and not after it: none before."""
    end = periods.end_of(period)
    if as_of < end:
        return {}
    return dict(
        connection.execute(
            """
            SELECT accounts.billing_account_id, count(*) FROM (
                SELECT tenant_id, device_id FROM wire.batches WHERE received_at <= $1 AND status <> 'quarantined'
                GROUP BY tenant_id, device_id HAVING min(received_at) < $2 AND max(received_at) < $2
            ) AS silent
            INNER JOIN (
                SELECT DISTINCT tenant_id, billing_account_id FROM marts.dim_billing_accounts
                WHERE valid_from < $4 AND (valid_to IS NULL OR valid_to > $3)
            ) AS accounts USING (tenant_id)
            GROUP BY ALL
            """,
            [as_of, end, period, periods.after(period)],
        ).fetchall()
    )


def _unpriced(connection: duckdb.DuckDBPyConnection, period: date) -> dict[str, list[_Unpriced]]:
    """Usage up to the period's end without a price, but for what was settled for it: a late one asks again later."""
    rows = connection.execute(
        """
        SELECT billing_account_id, model, count(*), CAST(sum(quantity) AS BIGINT), coalesce(sum(high_cost), 0),
            bool_or(high_cost IS NULL),
            bool_or(price_id IS NULL OR fx_rate_id IS NOT NULL OR pricing_currency = currency),
            list(DISTINCT pricing_currency || '/' || currency)
                FILTER (WHERE price_id IS NOT NULL AND fx_rate_id IS NULL AND pricing_currency <> currency)
        FROM marts.fct_rated_lines AS lines
        WHERE billed_cost IS NULL AND quantity > 0 AND usage_date < $2 AND NOT EXISTS (
            SELECT 1 FROM billing.settlements AS settled
            WHERE settled.billing_account_id = lines.billing_account_id AND settled.model = lines.model
                AND (settled.billing_period = $1 OR settled.kind = 'write_off')
                AND lines.usage_date < settled.billing_period + INTERVAL 1 MONTH
        )
        GROUP BY billing_account_id, model ORDER BY billing_account_id, model
        """,
        [period, periods.after(period)],
    ).fetchall()
    found: dict[str, list[_Unpriced]] = defaultdict(list)
    for account, *facts in rows:
        found[account].append(_Unpriced(*facts))
    return found


def _questions(connection: duckdb.DuckDBPyConnection, period: date) -> dict[tuple[str, str], tuple[int, Decimal, bool]]:
    """What else is open about a period's usage, as far as money hangs on it.

    A held turn counts if it arrived before the period's end: it may be of any day until then.
    """
    rows = connection.execute(
        """
        SELECT billing_account_id, exception_kind, sum(lines), coalesce(sum(high_cost), 0), bool_or(high_cost IS NULL)
        FROM marts.exc_billing_exceptions
        WHERE exception_kind <> 'future_dated' AND usage_date >= $1 AND usage_date < $2
        GROUP BY ALL
        UNION ALL
        SELECT accounts.billing_account_id, 'future_dated', count(*), 0, true FROM marts.mart_held_turns AS held
        INNER JOIN (
            SELECT DISTINCT tenant_id, billing_account_id FROM marts.dim_billing_accounts
            WHERE valid_from < $2 AND (valid_to IS NULL OR valid_to > $1)
        ) AS accounts USING (tenant_id)
        WHERE held.received_at < $3 GROUP BY ALL
        """,
        [period, periods.after(period), periods.end_of(period)],
    ).fetchall()
    return {
        (account, kind): (int(lines), Decimal(worth), bool(unknown)) for account, kind, lines, worth, unknown in rows
    }


def _variances(connection: duckdb.DuckDBPyConnection, period: date) -> dict[str, tuple[int, Decimal]]:
    """Buckets that a provider reported otherwise, by the accounts whose usage is in them."""
    rows = connection.execute(
        """
        SELECT used.billing_account_id, count(*), coalesce(sum(abs(variance_cost)), 0)
        FROM marts.rpt_reconciliation AS buckets
        INNER JOIN (
            SELECT DISTINCT billing_account_id, usage_date, provider_name,
                regexp_replace(price_model, '-(\\d{8}|\\d{4}-\\d{2}-\\d{2})$', '') AS model
            FROM marts.fct_rated_lines WHERE usage_date >= $1 AND usage_date < $2
        ) AS used USING (usage_date, provider_name, model)
        WHERE variance_class NOT IN ('match', 'within_tolerance', 'missing_theirs') GROUP BY ALL
        """,
        [period, periods.after(period)],
    ).fetchall()
    return {account: (int(buckets), Decimal(variance)) for account, buckets, variance in rows}


def _rows_off(connection: duckdb.DuckDBPyConnection, period: date) -> dict[str, tuple[Decimal, int]]:
    """By how much the rows of the export differ from the booked lines: what is sealed must be what was shown."""
    rows = connection.execute(
        """
        SELECT billing_account_id, coalesce(lines.cost, 0) - coalesce(shown.cost, 0),
            coalesce(lines.events, 0) - coalesce(shown.events, 0)
        FROM (
            SELECT billing_account_id, sum(billed_cost) AS cost, sum(events) AS events
            FROM statements.int_billing__booked_lines WHERE billing_period = $1 GROUP BY ALL
        ) AS lines
        FULL OUTER JOIN (
            SELECT "BillingAccountId" AS billing_account_id, sum("BilledCost") AS cost, sum("x_EventCount") AS events
            FROM marts.export_focus_daily WHERE billing_period = $1 GROUP BY ALL
        ) AS shown USING (billing_account_id)
        """,
        [period],
    ).fetchall()
    return {account: (Decimal(cost), int(events)) for account, cost, events in rows}


def _charged_through(connection: duckdb.DuckDBPyConnection) -> dict[str, date]:
    """Of accounts with a plan, the last month for which charges were made when the marts were built: a month in which
    nobody used anything is charged once the one before it is closed, by the next build."""
    return dict(
        connection.execute(
            """
            SELECT DISTINCT billing_account_id, coalesce(greatest(
                (SELECT max(billing_period) FROM marts.dim_billing_periods),
                (SELECT max(billing_month) FROM marts.fct_charges),
                (SELECT CAST(date_trunc('month', max(usage_date)) AS DATE) FROM marts.fct_rated_lines)
            ), date '0001-01-01')
            FROM billing.plan_items
            """
        ).fetchall()
    )


def _payables(connection: duckdb.DuckDBPyConnection, period: date) -> dict[str, list[Payable]]:
    rows = connection.execute(
        """
        SELECT billing_account_id, invoice_id, currency, sum(exact), sum(rounded), map_from_entries(
            list((charge_category, exact) ORDER BY charge_category))
        FROM (
            SELECT billing_account_id, invoice_id, currency, charge_category, sum(exact_amount) AS exact,
                sum(rounded_amount) AS rounded
            FROM marts.fct_invoice_lines WHERE billing_period = ? GROUP BY ALL
        ) GROUP BY ALL ORDER BY 1, 2, 3
        """,
        [period],
    ).fetchall()
    found: dict[str, list[Payable]] = defaultdict(list)
    for account, *facts in rows:
        found[account].append(Payable(*facts))
    return found


def _gate(checks: Sequence[Check], account: str) -> Condition:
    names = ", ".join(check.name for check in failed(checks, account))
    return Condition(
        "finance_gate", bool(checks) and not names, f"failed: {names}" if names else "met" if checks else "-",
        settled_by="the runbook, A run failed at a gate",
    )  # fmt: skip
