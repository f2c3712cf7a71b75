"""Months of one account under what finance decides of it: books as the commands write them, real rating, plans, credit.

Does not belong here: years of many accounts (test_account_years.py), lines that are told (test_closing.py).
"""

from collections.abc import Callable, Mapping
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from pipelines.billing import agreements, books, closing, periods
from pipelines.billing import ledger as files
from pipelines.billing.prices import Price, Sheet, Source, decide, propose
from pipelines.commands.periods import _next as next_step
from tests.billing.account_years import START, Years
from tests.billing.ledgers import MET, Ledger, line

JANUARY, FEBRUARY, MARCH, APRIL = (date(2025, month, 1) for month in range(1, 5))
BOLT = {"tenant_id": "bolt", "billing_account_id": "acct-bolt"}
COMMITMENT: dict[str, Any] = {"billing_account_id": "a", "item": "rated_cost", "pricing": "none", "unit_price": None}


class Months(Years):
    """Account `a` from the start, a turn of a million output tokens on a day, and months that close."""

    def __init__(self, models: Mapping[str, str], folder: Path) -> None:
        super().__init__(models, folder, 0, 1)
        self.decided = 0
        opened = {"account": "a", "tenant": "a", "name": "A", "currency": "USD", "charged_by": "tokens"}
        self.do(agreements.open_account, **opened, valid_from=date(2024, 1, 1))

    def do(self, decide: Callable[..., Any], **given: Any) -> None:
        """One decision, signed a minute after the one before."""
        self.decided += 1
        signature = agreements.Signature("f", "g", START + timedelta(days=1, minutes=self.decided))
        decide([self.folder], signature, **given)
        books.load(self.connection, [self.folder])

    def turn(self, day: date, model: str = "m") -> None:
        self.use("a", day, (0, 10**6))
        self.turns[-1] |= {"model": model}

    def write_off(self, month: date, model: str) -> None:
        """A model that is known and has no price, let go by name."""
        alias = {"alias_id": model, "model": model, "provider_name": "p", "price_model": model, "recorded_at": START}
        books.append(books.ALIASES, self.folder, [dict.fromkeys(books.ALIASES.columns) | alias])
        settled = {
            "settlement_id": model, "billing_account_id": "a", "billing_period": month, "kind": "write_off",
            "model": model, "reason": "agreed", "recorded_by": "ada", "recorded_at": START + timedelta(hours=1),
        }  # fmt: skip
        books.append(books.SETTLEMENTS, self.folder, [settled])
        books.load(self.connection, [self.folder])

    def price(self, model: str, amount: str) -> None:
        """A price that is decided on later than anything else."""
        prices = tuple(Price(component=name, unit_price=Decimal(amount)) for name in ("input_uncached", "output"))
        source = Source(name="operator", version="1", sha256="0" * 64)
        sheet = Sheet(provider_name="p", model=model, source=source, valid_from=START, prices=prices)
        now = START + timedelta(days=2)
        propose([self.folder], [sheet], now=now)
        decide([self.folder], [sheet.sheet_id], "approve", by="f", reason="r", now=now)
        books.load(self.connection, [self.folder])

    def close(self, month: date) -> None:
        """Both steps, five days after the month's end."""
        self.build()
        given: dict[str, Any] = {
            "actor": "ada", "reason": "r", "as_of": periods.end_of(month) + timedelta(days=5), "checks": [MET],
            "waived": {"grace": "told so", "arrivals": "told so"},
        }  # fmt: skip
        closing.close(self.connection, self.folder, month, **given, signed="")
        book = periods.read(files.book_path(self.folder))
        ready = closing.readiness(self.connection, book, month, as_of=given["as_of"], checks=[MET])
        signed = closing.signature(item for item in ready if item.status == "closing")
        closing.close(self.connection, self.folder, month, **given, signed=signed)
        self.build()

    def payable(self) -> dict[str, Decimal]:
        """What each invoice asks for."""
        query = "select invoice_id, sum(rounded_amount) from marts.fct_invoice_lines group by 1"
        return dict(self.connection.execute(query).fetchall())


@pytest.fixture
def months(statement_models: Mapping[str, str], tmp_path: Path) -> Months:
    return Months(statement_models, tmp_path)


@pytest.mark.parametrize("agreed", ["credit", "commitment"])
def test_what_was_written_off_costs_nothing_when_its_model_gets_a_price(months: Months, agreed: str) -> None:
    """Neither is credit drawn for it, nor does it count towards a commitment."""
    months.turn(date(2025, 1, 5), "x")
    months.turn(date(2025, 1, 6))
    months.turn(date(2025, 2, 6))
    if agreed == "credit":
        granted = {"account": "a", "amount": Decimal(1000), "reason": "r", "granted_on": JANUARY}
        months.do(agreements.grant_credit, grant="g", **granted)
    else:
        months.do(agreements.set_plan_item, item_id="p", **COMMITMENT, commit_amount=Decimal(100), valid_from=JANUARY)
    months.write_off(JANUARY, "x")
    months.close(JANUARY)
    before = months.payable()
    months.price("x", "9")
    months.build()
    assert months.payable() == before
    assert before["INV-2025-01-a-USD"] == (0 if agreed == "credit" else 100)


def test_an_item_of_no_day_charges_nothing(months: Months) -> None:
    """Release 0.2.0 took one that began within a month, and let it end on that day."""
    months.turn(date(2025, 1, 10))
    day = date(2025, 1, 15)
    item = COMMITMENT | {"plan_item_id": "p", "included_units": 0, "commit_amount": Decimal(100), "recorded_at": START}
    row = dict.fromkeys(books.PLAN_ITEMS.columns) | item | {"valid_from": day, "valid_to": day}
    books.append(books.PLAN_ITEMS, months.folder, [row])
    books.load(months.connection, [months.folder])
    months.build()
    assert months.payable() == {"INV-2025-01-a-USD": Decimal("15.00")}


def test_an_account_that_was_away_for_a_month_closes_it_too(months: Months) -> None:
    for month in (JANUARY, FEBRUARY, MARCH):
        months.turn(month.replace(day=5))
    months.do(agreements.change_account, tenant="a", valid_from=FEBRUARY, valid_to=MARCH, billing_account_id="b")
    for month in (JANUARY, FEBRUARY, MARCH):
        months.close(month)
    book = periods.read(files.book_path(months.folder))
    assert [book.closed_through(account) for account in "ab"] == [MARCH, FEBRUARY]
    assert sorted(months.payable()) == ["INV-2025-01-a-USD", "INV-2025-02-b-USD", "INV-2025-03-a-USD"]


def test_one_account_that_is_held_back_stops_no_others_next_month(ledger: Ledger) -> None:
    for month in (JANUARY, FEBRUARY, MARCH):
        day = month.replace(day=5)
        ledger.tell([line(f"a{month}", day), line(f"b{month}", day, **BOLT)])
    ledger.close(JANUARY)
    unpriced = dict.fromkeys(
        ("list_cost", "contracted_cost", "billed_cost", "list_unit_price", "contracted_unit_price")
    )
    ledger.tell([line("x", date(2025, 2, 6), **BOLT | unpriced | {"model": "unknown"})])
    ledger.close(FEBRUARY)
    ledger.close(MARCH)
    later = periods.end_of(MARCH) + timedelta(days=5)
    only_bolt = [item for item in ledger.ready(MARCH, later) if item.account == "acct-bolt"]
    assert next_step(MARCH, only_bolt) == "close the earlier months first, as the table says"
    assert "starts closing" not in next_step(MARCH, ledger.ready(MARCH, later))
    book = periods.read(files.book_path(ledger.books))
    assert [book.status(month, "acct-acme") for month in (FEBRUARY, MARCH)] == ["closed", "closed"]
    assert [book.status(month, "acct-bolt") for month in (FEBRUARY, MARCH)] == ["closing", "open"]


def test_a_plan_that_began_within_a_month_can_be_put_right_and_taken_back(months: Months) -> None:
    day = date(2025, 1, 15)
    item = COMMITMENT | {"plan_item_id": "p", "included_units": 0, "commit_amount": Decimal(100), "recorded_at": START}
    row = dict.fromkeys(books.PLAN_ITEMS.columns) | item | {"valid_from": day}
    books.append(books.PLAN_ITEMS, months.folder, [row])
    months.do(agreements.set_plan_item, item_id="p", **COMMITMENT, commit_amount=Decimal(90), valid_from=day)
    months.do(agreements.end, book=books.PLAN_ITEMS, name="p", valid_to=MARCH)
    months.do(agreements.end, book=books.PLAN_ITEMS, name="p", valid_to=day)
    months.turn(day)
    months.build()
    assert months.payable() == {"INV-2025-01-a-USD": Decimal("15.00")}


@pytest.mark.parametrize(
    ("decide", "given", "message"),
    [
        (agreements.set_plan_item, COMMITMENT | {"item_id": "p", "commit_amount": Decimal(200), "valid_from": MARCH},
         "p is said from 2025-01-01 on: let it end on 2025-03-01 and give what comes then another name"),
        (agreements.set_contract_rate, {"rate_id": "r", "factor": Decimal("0.25"), "unit_price": None, "model": "m",
                                        "billing_account_id": "a", "valid_from": MARCH},
         "r is said from 2025-01-01 on: let it end on 2025-03-01"),
        (agreements.hold_seat, {"seat": "s", "account": "a", "user": "eve", "valid_from": date(2025, 1, 11)},
         "seat s is held by bob from 2025-01-01 without an end: end that first"),
        (agreements.hold_seat, {"seat": "s", "account": "a", "user": "eve", "valid_from": date(2024, 12, 1)},
         "seat s is held by bob from 2025-01-01 without an end: end that first"),
        (agreements.set_plan_item, {"item_id": "q", "billing_account_id": "a", "item": "seat", "pricing": "per_unit",
                                    "unit_price": Decimal(20), "included_units": 2, "valid_from": JANUARY},
         "seats that are paid by the day have no included units"),
        (agreements.set_plan_item, COMMITMENT | {"item_id": "q", "commit_amount": Decimal(2),
                                                 "valid_from": date(2025, 1, 16)},
         "only seats are paid by the day: a plan begins and ends on the first day of a month"),
        (agreements.end, {"book": books.PLAN_ITEMS, "name": "p", "valid_to": date(2025, 2, 2)},
         "only seats are paid by the day"),
        (agreements.change_account, {"tenant": "a", "charged_by": "plan", "valid_from": date(2025, 1, 15)},
         "how an account is charged changes on the first day of a month"),
        (agreements.grant_credit, {"grant": "g", "account": "nobody", "amount": Decimal(1), "reason": "r",
                                   "granted_on": JANUARY}, "nobody is no account"),
        (agreements.grant_credit, {"grant": "g", "account": "a", "amount": Decimal(1), "reason": "r",
                                   "granted_on": date(2023, 12, 31)},
         "credit before 2024-01-01, the first day of a, would pay nothing"),
    ],
)  # fmt: skip
def test_what_would_be_charged_twice_or_not_at_all_is_refused(
    months: Months, decide: Callable[..., Any], given: Mapping[str, Any], message: str
) -> None:
    months.do(agreements.set_plan_item, item_id="p", **COMMITMENT, commit_amount=Decimal(100), valid_from=JANUARY)
    rate = {"billing_account_id": "a", "model": "m", "factor": Decimal("0.5"), "unit_price": None}
    months.do(agreements.set_contract_rate, rate_id="r", **rate, valid_from=JANUARY)
    months.do(agreements.hold_seat, seat="s", account="a", user="bob", valid_from=JANUARY)
    with pytest.raises(books.BookError, match=message):
        months.do(decide, **given)
