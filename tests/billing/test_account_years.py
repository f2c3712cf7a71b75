"""Invoices of generated account-years against a second calculation: plans, credit, commitments, discounts, exchange,
corrections; to the last digit before rounding and to the cent after it."""

import hashlib
from collections.abc import Mapping
from datetime import date, timedelta
from decimal import ROUND_HALF_UP, Decimal, localcontext
from pathlib import Path

import pytest

from pipelines.billing import closing, periods
from pipelines.billing import ledger as files
from pipelines.billing.books import NO_MINOR_UNIT
from tests.billing.account_years import MONTHS, Years, truth
from tests.billing.ledgers import MET

pytestmark = pytest.mark.services

SHORT, LONG = 40, 2000
WAIVED = {"grace": "nobody is late", "arrivals": "-"}


def close(years: Years, month: date) -> None:
    """Close a month for every account by what its checklist names."""
    as_of = periods.end_of(month) + timedelta(days=5)
    given = {"actor": "ada", "reason": "month end", "as_of": as_of, "checks": [MET], "waived": WAIVED}
    closing.close(years.connection, years.folder, month, **given, signed="")
    book = periods.read(files.book_path(years.folder))
    ready = closing.readiness(years.connection, book, month, as_of=as_of, checks=[MET])
    done = closing.close(years.connection, years.folder, month, **given, signed=closing.signature(ready))
    assert done.held == (), "every month is closable in the same turn"


def closed_rows(years: Years, through: date) -> str:
    """The rows of closed months as one hash."""
    rows = years.connection.execute(
        'select * exclude (_booking_seq) from marts.export_focus_daily where billing_period <= ? order by "x_RowKey"',
        [through],
    ).fetchall()
    return hashlib.sha256(repr(rows).encode()).hexdigest()


def check(years: Years, billed: Mapping[tuple[str, date], Decimal], months: list[date]) -> None:
    """Payable amounts of some months: the exact sum rounded once, and its lines add up to it."""
    found = {
        (account, period): (exact, payable, currency, delta)
        for account, period, currency, exact, payable, delta in years.connection.execute(
            "select billing_account_id, billing_period, currency, sum(exact_amount), sum(rounded_amount),"
            " max(abs(rounding_delta)) from marts.fct_invoice_lines group by all"
        ).fetchall()
    }
    for (account, month), expected in billed.items():
        if month not in months:
            continue
        exact, payable, currency, delta = found.get((account, month), (Decimal(0), Decimal(0), "USD", Decimal(0)))
        unit = Decimal(1) if currency in NO_MINOR_UNIT else Decimal("0.01")
        with localcontext(prec=60):
            assert exact == expected, (account, month)
            assert payable == (expected / unit).quantize(Decimal(1), ROUND_HALF_UP) * unit
        assert delta < unit


def run(years: Years) -> int:
    """Half a year closed as it was known, then corrected, then the rest; how many invoices were compared."""
    first, second = MONTHS[:6], MONTHS[6:]
    years.build()
    known = truth(years)
    billed = dict(known)
    check(years, billed, MONTHS)
    for month in first:
        close(years, month)
    years.build()
    check(years, billed, MONTHS)
    before, sealed = closed_rows(years, first[-1]), sorted((years.folder / "closed").iterdir())
    contents = [path.read_bytes() for path in sealed]
    years.correct()
    years.build()
    now = truth(years)
    with localcontext(prec=60):
        billed = {key: (known[key] if key[1] in first else now[key]) for key in now}
        for (account, month), amount in now.items():
            if month in first:
                billed[account, second[0]] += amount - known[account, month]
    check(years, billed, MONTHS)
    for month in second:
        close(years, month)
    years.build()
    check(years, billed, MONTHS)
    assert closed_rows(years, first[-1]) == before, "what was closed is as it was"
    assert [path.read_bytes() for path in sealed] == contents
    pending = "select distinct billing_period, charge_category = 'Usage' from statements.int_billing__booked_lines"
    left = years.connection.execute(f"{pending} where seal_seq is null").fetchall()
    assert left == [(periods.after(MONTHS[-1]), False)], "what plans charge in the month that is next to be closed"
    return sum(amount != 0 for amount in billed.values())


def test_invoices_of_generated_years_equal_a_second_calculation(
    statement_models: Mapping[str, str], tmp_path: Path
) -> None:
    assert run(Years(statement_models, tmp_path, SHORT, seed=1)) > SHORT * 7


@pytest.mark.long
def test_invoices_of_two_thousand_account_years(statement_models: Mapping[str, str], tmp_path: Path) -> None:
    assert run(Years(statement_models, tmp_path, LONG, seed=2)) > LONG * 7
