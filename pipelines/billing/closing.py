"""Closes a month: says what is still in the way, freezes its lines, writes the transition into the book.

Does not belong here: the rules of transitions (periods.py), the files of the closed month (exports.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import duckdb

from pipelines.billing import exports, ledger, periods
from pipelines.billing.gate import Check, failed
from pipelines.billing.ledger import LINES
from pipelines.billing.periods import Book, Condition, NotReadyError, PeriodError, Transition, unmet_conditions
from pipelines.contract.numbers import plain
from pipelines.errors import ExpectedError
from pipelines.failpoints import fp

MATERIAL = Decimal("0.01")  # what an open exception may come to: less than the smallest payable amount
# What may be passed over by name and reason, by kind of exception. A line without a price may not: it would be missing.
QUESTIONS = {
    "unattributed": "lines have no account",
    "conflict": "lines are of records that came again with other facts",
    "future_dated": "turns are held: they claim to be later than their arrival",
    "implausible": "lines are of turns of more than plausible tokens or cost",
    "cache_convention_unknown": "lines are of sources of whom nobody said how they count cache tokens",
}


class SignatureError(ExpectedError):
    """The totals are not those that were signed."""


@dataclass(frozen=True)
class Readiness:
    """The checklist of one period, and the totals that closing it would sign."""

    conditions: tuple[Condition, ...]
    totals_sha256: str
    totals: Mapping[str, Mapping[str, Mapping[str, str]]]


def watermark(connection: duckdb.DuckDBPyConnection, *, as_of: datetime) -> datetime:
    """Up to when usage is known: the latest event that happened before `as_of`; 1970 if there is none."""
    found = connection.execute(
        "SELECT max(occurred_at) FROM marts.fct_llm_turns WHERE occurred_at <= ?", [as_of]
    ).fetchone()
    return found[0].astimezone(UTC) if found and found[0] else datetime(1970, 1, 1, tzinfo=UTC)


def readiness(
    connection: duckdb.DuckDBPyConnection, book: Book, period: date, *, as_of: datetime, checks: Sequence[Check]
) -> Readiness:
    """Every condition of closing, met or not. Reads the warehouse and `as_of`, no clock."""
    known = watermark(connection, as_of=as_of)
    last = book.last(period)
    waiting = (
        periods.grace_over(last, as_of=as_of, watermark_at=known)
        if last is not None and last.after == "closing"
        else Condition("grace", False, "starts with the first `apiary period close`", can_be_waived=False)
    )
    conditions = (
        waiting,
        _arrivals(connection, period, as_of=as_of),
        _priced(connection, period),
        *_questions(connection, period),
        _reconciled(connection, period),
        _gate(checks),
        _lines_are_rows(connection, period),
    )
    rows = exports.period_rows(connection, period)
    return Readiness(conditions, exports.totals_sha256(rows), exports.totals(rows))


def close(
    connection: duckdb.DuckDBPyConnection, folder: Path, period: date, *, actor: str, reason: str, as_of: datetime,
    checks: Sequence[Check], waived: Mapping[str, str], signed: str,
) -> Transition:  # fmt: skip
    """One step towards closed: open → closing, or closing → closed. The lines are sealed before the book says so.

    Raises periods.PeriodError, NotReadyError, SignatureError, OSError.
    """
    path = ledger.book_path(folder)
    book = ledger.load(connection, folder)
    status = book.status(period)
    if status == "closed":
        raise PeriodError(f"{period:%Y-%m} is closed already")
    if status == "open":
        known = watermark(connection, as_of=as_of)
        transition = periods.start_closing(
            book, period, actor=actor, reason=reason, as_of=as_of, watermark_at=known
        )  # fmt: skip
        periods.write(path, transition)
        ledger.load(connection, folder)
        return transition
    ready = readiness(connection, book, period, as_of=as_of, checks=checks)
    if unmet := unmet_conditions(ready.conditions, waived):
        raise NotReadyError(f"{period:%Y-%m} cannot be closed: " + "; ".join(f"{c.name}: {c.found}" for c in unmet))
    if len(signed) < 12 or not ready.totals_sha256.startswith(signed):
        raise SignatureError(
            f"the totals of {period:%Y-%m} are {ready.totals_sha256[:12]}: look at them with `apiary period status"
            f" {period:%Y-%m}` and sign them with --sign {ready.totals_sha256[:12]}"
        )
    digest = ledger.seal(folder, pending(connection, period))
    fp("close.sealed")
    transition = periods.close(
        book, period, actor=actor, reason=reason, as_of=as_of, conditions=ready.conditions, waived=waived,
        totals_sha256=ready.totals_sha256, seal=digest,
    )  # fmt: skip
    periods.write(path, transition)
    fp("close.booked")
    ledger.load(connection, folder)
    return transition


def pending(connection: duckdb.DuckDBPyConnection, period: date):  # type: ignore[no-untyped-def]
    """The lines of a period that are in no sealed file yet, as an Arrow table of `ledger.LINES`."""
    return connection.execute(
        f"SELECT {', '.join(LINES.names)} FROM intermediate.int_billing__booked_lines"
        " WHERE billing_period = ? AND seal_seq IS NULL",
        [period],
    ).to_arrow_table()


def _arrivals(connection: duckdb.DuckDBPyConnection, period: date, *, as_of: datetime) -> Condition:
    """Every device that was heard of before the end of the month was heard of after it."""
    end = periods.end_of(period)
    found = connection.execute(
        """
        SELECT count(*) FROM (
            SELECT tenant_id, device_id FROM wire.batches WHERE received_at <= ? AND status <> 'quarantined'
            GROUP BY tenant_id, device_id HAVING min(received_at) < ? AND max(received_at) < ?
        )
        """,
        [as_of, end, end],
    ).fetchone()
    silent = int(found[0]) if found else 0
    return Condition(
        "arrivals", silent == 0, f"{silent} devices sent nothing since the month ended", can_be_waived=True
    )


def _priced(connection: duckdb.DuckDBPyConnection, period: date) -> Condition:
    """Usage without a price: never waived, because a closed month could only be corrected."""
    found = connection.execute(
        """
        SELECT count(*), coalesce(sum(high_cost), 0), count(*) FILTER (WHERE high_cost IS NULL)
        FROM marts.fct_rated_lines WHERE billed_cost IS NULL AND quantity > 0 AND usage_date >= ? AND usage_date < ?
        """,
        [period, periods.after(period)],
    ).fetchone()
    lines, exposure, unknown = found or (0, Decimal(0), 0)
    is_met = exposure < MATERIAL and unknown == 0
    return Condition("exceptions", is_met, f"{lines} lines have no price and may cost up to {plain(Decimal(exposure))}")


def _questions(connection: duckdb.DuckDBPyConnection, period: date) -> list[Condition]:
    """What else is open about a period's usage, as far as money hangs on it.

    A held turn counts if it arrived before the period's end: it may be of any day until then.
    """
    found = connection.execute(
        """
        SELECT exception_kind, sum(lines), coalesce(sum(high_cost), 0), bool_or(high_cost IS NULL)
        FROM marts.exc_billing_exceptions
        WHERE exception_kind <> 'future_dated' AND usage_date >= $1 AND usage_date < $2
        GROUP BY exception_kind
        UNION ALL
        SELECT 'future_dated', count(*), 0, count(*) > 0 FROM marts.mart_held_turns WHERE received_at < $3
        """,
        [period, periods.after(period), periods.end_of(period)],
    ).fetchall()
    by_kind = {kind: (int(lines), Decimal(exposure), bool(unknown)) for kind, lines, exposure, unknown in found}
    conditions = []
    for kind, words in QUESTIONS.items():
        lines, exposure, unknown = by_kind.get(kind, (0, Decimal(0), False))
        is_small = exposure < MATERIAL and not unknown and kind not in ("conflict", "cache_convention_unknown")
        is_met = lines == 0 or is_small
        most = "nobody knows what" if unknown else plain(exposure)
        conditions.append(Condition(kind, is_met, f"{lines} {words}, worth up to {most}", can_be_waived=True))
    return conditions


def _reconciled(connection: duckdb.DuckDBPyConnection, period: date) -> Condition:
    """Every bucket that a provider reported agrees with ours."""
    found = connection.execute(
        """
        SELECT count(*), coalesce(sum(abs(variance_cost)), 0) FROM marts.rpt_reconciliation
        WHERE usage_date >= ? AND usage_date < ?
            AND variance_class NOT IN ('match', 'within_tolerance', 'missing_theirs')
        """,
        [period, periods.after(period)],
    ).fetchone()
    buckets, variance = found or (0, Decimal(0))
    return Condition(
        "reconciliation", buckets == 0, f"{buckets} buckets differ from the providers' by {plain(Decimal(variance))}",
        can_be_waived=True,
    )  # fmt: skip


def _gate(checks: Sequence[Check]) -> Condition:
    names = ", ".join(check.name for check in failed(checks))
    return Condition(
        "finance_gate", bool(checks) and not names, f"failed: {names}" if names else "met" if checks else "-"
    )


def _lines_are_rows(connection: duckdb.DuckDBPyConnection, period: date) -> Condition:
    """The rows of the export are the booked lines: what is sealed is what was shown."""
    found = connection.execute(
        """
        SELECT
            (SELECT coalesce(sum(billed_cost), 0) FROM intermediate.int_billing__booked_lines WHERE billing_period = ?)
            - (SELECT coalesce(sum("BilledCost"), 0) FROM marts.export_focus_daily WHERE billing_period = ?),
            (SELECT coalesce(sum(events), 0) FROM intermediate.int_billing__booked_lines WHERE billing_period = ?)
            - (SELECT coalesce(sum("x_EventCount"), 0) FROM marts.export_focus_daily WHERE billing_period = ?)
        """,
        [period] * 4,
    ).fetchone()
    cost, lines = found or (Decimal(0), 0)
    text = f"off by {plain(Decimal(cost))} and {lines} lines: `apiary run` first" if cost or lines else "equal"
    return Condition("lines_are_rows", cost == 0 and lines == 0, text)
