"""Months of one account under what finance decides of it.

Does not belong here: years of many accounts (test_account_years.py), lines that are told (test_closing.py), the order
of closing (test_order_of_closing.py), erasures (test_erased_months.py).
"""

from collections.abc import Callable, Mapping
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest

from pipelines.billing import agreements, books
from tests.billing.account_years import START
from tests.billing.months import APRIL, COMMITMENT, FEBRUARY, JANUARY, MARCH, Months


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
    months.settle(JANUARY, "x", "write_off")
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


def test_a_commitment_is_owed_for_a_month_in_which_nobody_uses_anything(months: Months) -> None:
    months.turn(date(2025, 1, 5))
    commitment = COMMITMENT | {"commit_amount": Decimal(100), "valid_from": JANUARY, "valid_to": APRIL}
    months.do(agreements.set_plan_item, item_id="p", **commitment)
    for month in (JANUARY, FEBRUARY, MARCH):
        months.close(month)
    assert months.payable() == {f"INV-2025-0{number}-a-USD": 100 for number in (1, 2, 3)}


def test_a_missing_rate_of_exchange_is_asked_for_and_recorded(months: Months) -> None:
    months.do(agreements.change_account, tenant="a", valid_from=JANUARY, currency="CHF")
    months.turn(date(2025, 1, 5))
    months.build()
    (account,) = months.ready(JANUARY)
    (exceptions,) = (condition for condition in account.unmet() if condition.name == "exceptions")
    assert exceptions.settled_by == (
        "apiary fx-rate set --pair USD/CHF or apiary period settle 2025-01 --account a --write-off|--late"
    )
    rate = {"currency_from": "USD", "currency_to": "CHF", "source": "SNB", "valid_from": JANUARY}
    for amount in ("0.9", "0.8"):
        months.do(agreements.set_fx_rate, **rate, rate=Decimal(amount))
    months.build()
    assert months.payable() == {"INV-2025-01-a-CHF": 12}
    with pytest.raises(books.BookError, match="is of two currencies, and above 0"):
        months.do(agreements.set_fx_rate, **rate, rate=Decimal(0))


def test_credit_pays_what_was_used_before_the_currency_changed(months: Months) -> None:
    """And the credit of the other currency what came after: two lines of credit in one month."""
    months.turn(date(2025, 1, 5))
    months.turn(date(2025, 1, 25))
    months.do(agreements.change_account, tenant="a", valid_from=date(2025, 1, 20), currency="EUR")
    granted: dict[str, Any] = {"account": "a", "amount": Decimal(100), "reason": "r"}
    months.do(agreements.grant_credit, grant="dollars", **granted, granted_on=date(2025, 1, 2))
    months.build()
    assert months.payable() == {"INV-2025-01-a-USD": 0, "INV-2025-01-a-EUR": Decimal("13.50")}
    known = months.connection.execute("select charge_id from marts.fct_charges").fetchall()
    months.do(agreements.grant_credit, grant="euros", **granted, granted_on=date(2025, 1, 21))
    months.close(JANUARY)
    assert months.payable() == {"INV-2025-01-a-USD": 0, "INV-2025-01-a-EUR": 0}
    charges = months.connection.execute("select charge_id, currency from marts.fct_charges").fetchall()
    assert sorted(currency for _, currency in charges) == ["EUR", "USD"]
    assert len({name for name, _ in charges}) == 2
    assert known == [(name,) for name, currency in charges if currency == "USD"]


def test_what_a_change_does_not_name_stays_as_later_changes_say_it(months: Months) -> None:
    """One that is recorded later, of earlier days on, changed the currency back."""
    months.do(agreements.change_account, tenant="a", valid_from=MARCH, currency="EUR")
    months.do(agreements.change_account, tenant="a", valid_from=FEBRUARY, name="New")
    said = [agreements.payer_on([months.folder], "a", month) or {} for month in (JANUARY, FEBRUARY, MARCH, APRIL)]
    assert [(row["name"], row["currency"]) for row in said] == [
        ("A", "USD"), ("New", "USD"), ("New", "EUR"), ("New", "EUR"),
    ]  # fmt: skip


def test_an_account_for_earlier_days_ends_where_another_one_pays(months: Months) -> None:
    opened = {"tenant": "b", "name": "B", "currency": "USD"}
    months.do(agreements.open_account, account="later", **opened, valid_from=MARCH)
    months.do(agreements.open_account, account="earlier", **opened, valid_from=JANUARY)
    payers = [agreements.payer_on([months.folder], "b", month) or {} for month in (JANUARY, FEBRUARY, MARCH)]
    assert [row["billing_account_id"] for row in payers] == ["earlier", "earlier", "later"]


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


def test_a_change_is_not_one_of_the_account_that_pays_later(months: Months) -> None:
    months.do(agreements.change_account, tenant="a", valid_from=MARCH, billing_account_id="other", name="Other")
    months.do(agreements.change_account, tenant="a", valid_from=FEBRUARY, currency="EUR", name="New")
    said = [agreements.payer_on([months.folder], "a", month) or {} for month in (FEBRUARY, MARCH)]
    assert [(row["billing_account_id"], row["name"], row["currency"]) for row in said] == [
        ("a", "New", "EUR"), ("other", "Other", "USD"),
    ]  # fmt: skip


def test_of_two_who_hold_a_seat_the_one_ends_who_held_it_before(months: Months) -> None:
    """Books of earlier releases hold such seats, and whoever enters a third is told to end the first one."""
    held = {"seat_id": "s", "billing_account_id": "a", "valid_to": None, "recorded_by": "f", "approved_by": "g"}
    both = [
        {"user_id": user, "valid_from": day, "recorded_at": START + timedelta(days=2), **held}
        for user, day in (("greta", JANUARY), ("hugo", FEBRUARY))
    ]
    books.append(books.SEATS, months.folder, both)
    months.do(agreements.end_seat, seat="s", valid_to=FEBRUARY)
    newest = {row["user_id"]: row["valid_to"] for row in books.read(books.SEATS, [months.folder])}
    assert newest == {"greta": FEBRUARY, "hugo": None}


@pytest.mark.parametrize("day", [date(2023, 12, 15), date(2025, 2, 15)])
def test_credit_of_a_day_that_its_account_never_had_pays_nothing(months: Months, day: date) -> None:
    """Books of earlier releases hold such grants: of a day before the account, and of a month in which another paid."""
    months.do(agreements.change_account, tenant="a", valid_from=FEBRUARY, valid_to=MARCH, billing_account_id="b")
    grant = {
        "credit_grant_id": "g", "billing_account_id": "a", "reason": "r", "amount": Decimal(10), "granted_by": "f",
        "granted_on": day, "expires_on": None, "approved_by": "g", "recorded_at": START + timedelta(days=2),
    }  # fmt: skip
    books.append(books.CREDIT_GRANTS, months.folder, [grant])
    books.load(months.connection, [months.folder])
    months.turn(date(2025, 1, 5))
    months.turn(date(2025, 3, 5))
    months.build()
    assert sorted(months.owed().values()) == [15, 15]


def test_credit_stays_drawn_when_another_account_gets_the_day_of_its_grant(months: Months) -> None:
    granted = {"account": "a", "amount": Decimal(100), "reason": "r", "granted_on": date(2024, 12, 2)}
    months.do(agreements.grant_credit, grant="g", **granted)
    months.turn(date(2025, 1, 5))
    months.close(JANUARY)
    moved = {"valid_from": date(2024, 12, 1), "valid_to": JANUARY, "billing_account_id": "b"}
    months.do(agreements.change_account, tenant="a", **moved)
    months.build()
    assert months.owed() == {}
