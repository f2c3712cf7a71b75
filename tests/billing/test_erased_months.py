"""What an erasure leaves of months that were closed: every amount, once, with the account that owes it.

Does not belong here: which bytes go (test_redaction.py).
"""

from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from pipelines.billing import agreements, books
from tests.billing.months import COMMITMENT, FEBRUARY, JANUARY, Months


def colony_days(months: Months, *accounts: str) -> None:
    """Plans that count them, and for nothing else."""
    months.do(agreements.change_account, tenant="a", valid_from=JANUARY, charged_by="plan")
    plan: dict[str, Any] = {"item": "colony_day", "pricing": "per_unit", "unit_price": Decimal(10)}
    for account in accounts:
        months.do(
            agreements.set_plan_item, item_id=account, billing_account_id=account, **plan, valid_from=JANUARY,
            valid_to=FEBRUARY,
        )  # fmt: skip


def use(months: Months, session: str, user: str, colony: str, day: date) -> None:
    """A session of a user in a colony, and its turn."""
    months.connection.execute(
        "insert into core.int_sessions__tree_resolved values ('a', ?, ?, 'x', ?, ?)", [session, user, session, colony]
    )
    turn(months, session, day)


def turn(months: Months, session: str, day: date, model: str = "m") -> None:
    months.turn(day, model)
    months.turns[-1]["session_id"] = session


def seat(months: Months, account: str) -> None:
    """Bob's, in January."""
    plan: dict[str, Any] = {"item": "seat", "pricing": "per_unit", "unit_price": Decimal(31), "valid_from": JANUARY}
    months.do(agreements.set_plan_item, item_id="p", billing_account_id=account, **plan, valid_to=FEBRUARY)
    months.do(agreements.hold_seat, seat="s", account=account, user="bob", valid_from=JANUARY, valid_to=FEBRUARY)


@pytest.mark.parametrize("is_erased_later", [False, True])
def test_erased_colonies_are_counted_as_they_were(months: Months, is_erased_later: bool) -> None:
    """Each colony and day once, in a plan that counts them: also if one more is erased, and if usage comes late."""
    colony_days(months, "a")
    for session, user, colony in (("s1", "bob", "c1"), ("s2", "bob", "c2"), ("s3", "eve", "c3"), ("s4", "ada", "c4")):
        use(months, session, user, colony, date(2025, 1, 6))
    months.close(JANUARY)
    before = months.owed()
    assert before == {"INV-2025-01-a-USD": 40}
    months.erase({"s1": {"bob", "c1"}, "s2": {"c2"}})
    assert months.owed() == before
    shown = "select distinct colony_id from statements.int_billing__booked_lines where colony_id like 'ERASED%'"
    assert months.connection.execute(shown).fetchall() == [("ERASED",)], "statements do not tell one from the other"
    if is_erased_later:
        months.erase({"s3": {"eve", "c3"}})
        assert months.owed() == before
    turn(months, "s4", date(2025, 1, 7))
    turn(months, "s4", date(2025, 1, 8), "x")
    months.settle(FEBRUARY, "x", "write_off")
    months.build()
    assert months.owed() == before | {"INV-2025-02-a-USD": 20}
    months.close(FEBRUARY)
    assert months.owed() == before | {"INV-2025-02-a-USD": 20}


def test_colony_days_that_moved_and_were_erased_are_counted_once(months: Months) -> None:
    colony_days(months, "a", "b")
    for session, user, colony, day in (("s1", "bob", "c1", 10), ("s2", "bob", "c2", 20), ("s3", "eve", "c3", 20)):
        use(months, session, user, colony, date(2025, 1, day))
    months.close(JANUARY)
    months.do(agreements.change_account, tenant="a", valid_from=date(2025, 1, 15), billing_account_id="b")
    months.close(JANUARY, accounts=["b"])
    right = {"INV-2025-01-a-USD": 30, "INV-2025-01-b-USD": 20, "INV-2025-02-a-USD": -20}
    assert months.owed() == right
    months.erase({"s1": {"bob", "c1"}, "s2": {"c2"}})
    assert months.owed() == right
    months.close(FEBRUARY)
    assert months.owed() == right


@pytest.mark.parametrize("is_moved_back", [False, True])
def test_usage_that_moved_and_was_erased_then_is_billed_to_one_account(months: Months, is_moved_back: bool) -> None:
    """And counts towards the commitment of that one."""
    commitment = COMMITMENT | {"commit_amount": Decimal(100), "valid_from": JANUARY, "valid_to": FEBRUARY}
    months.do(agreements.set_plan_item, item_id="p", **commitment)
    turn(months, "s1", date(2025, 1, 5))
    turn(months, "s2", date(2025, 1, 20))
    months.close(JANUARY)
    move: dict[str, Any] = {"tenant": "a", "valid_from": date(2025, 1, 15)}
    months.do(agreements.change_account, **move, billing_account_id="b")
    months.close(JANUARY, accounts=["b"])
    right = {"INV-2025-01-a-USD": 100, "INV-2025-01-b-USD": 15}
    if is_moved_back:
        months.do(agreements.change_account, **move, billing_account_id="a")
        months.build()
        right |= {"INV-2025-02-b-USD": -15}
    assert months.owed() == right
    months.erase({"s2": {"bob"}})
    assert months.owed() == right
    months.close(FEBRUARY)
    assert months.owed() == right


def test_credit_that_paid_what_was_erased_stays_drawn_when_the_month_moves(months: Months) -> None:
    granted: dict[str, Any] = {"account": "a", "amount": Decimal(100), "reason": "r", "granted_on": date(2024, 12, 2)}
    months.do(agreements.grant_credit, grant="g", **granted)
    turn(months, "s1", JANUARY)
    turn(months, "s2", FEBRUARY)
    months.close(JANUARY)
    months.erase({"s1": {"bob"}})
    moved: dict[str, Any] = {"valid_from": JANUARY, "valid_to": FEBRUARY, "billing_account_id": "b"}
    months.do(agreements.change_account, tenant="a", **moved)
    months.build()
    assert months.owed() == {}
    lines = "select count(*) from statements.int_billing__booked_lines where seal_seq is null and component = 'credit'"
    assert months.connection.execute(lines).fetchall() == [(1,)], "of February: nothing of January's is another one"
    months.do(agreements.change_account, tenant="a", valid_from=date(2025, 4, 1), currency="EUR")
    months.build()
    assert months.connection.execute(lines).fetchall() == [(1,)]
    (drawn,) = months.connection.execute(
        "select sum(amount) from marts.fct_credit_ledger where entry_kind = 'drawdown'"
    ).fetchall()
    assert drawn[0].quantize(Decimal("0.01")) == -30


@pytest.mark.parametrize("change", ["tenant", "account"])
def test_the_seat_of_an_erased_user_is_billed_once_whatever_is_decided_of_it(months: Months, change: str) -> None:
    """The account gets another tenant that is first by name; the plan was of the wrong account."""
    months.do(agreements.open_account, account="b", tenant="b", name="B", currency="USD", valid_from=JANUARY)
    months.turn(date(2025, 1, 5))
    seat(months, "a")
    months.close(JANUARY)
    months.erase({"s9": {"bob"}})
    assert sum(months.owed().values()) == 46
    if change == "tenant":
        months.do(agreements.open_account, account="a", tenant="_a", name="A", currency="USD", valid_from=JANUARY)
    else:
        seat(months, "b")
    months.build()
    assert sum(months.owed().values()) == 46
    months.close(FEBRUARY)
    assert sum(months.owed().values()) == 46


def test_the_seat_of_an_erased_user_that_finance_takes_out_is_the_last_accounts(months: Months) -> None:
    months.do(agreements.open_account, account="b", tenant="b", name="B", currency="USD", valid_from=JANUARY)
    months.turn(date(2025, 1, 5))
    seat(months, "a")
    months.close(JANUARY, accounts=["a"])
    seat(months, "b")
    months.close(JANUARY, accounts=["b"])
    before = months.owed()
    months.erase({"s9": {"bob"}})
    path = months.folder / "seats.csv"
    path.write_text("".join(row for row in path.read_text().splitlines(keepends=True) if ",bob," not in row))
    books.load(months.connection, [months.folder])
    months.build()
    assert months.owed() == before
    months.close(FEBRUARY)
    assert months.owed() == before


def move_january_of_the_erased(months: Months) -> None:
    """Two users work in two colonies, January closes, one is erased, and the whole month moves to account `b`."""
    use(months, "s1", "bob", "c1", date(2025, 1, 20))
    use(months, "s2", "eve", "c2", date(2025, 1, 20))
    months.close(JANUARY)
    months.erase({"s1": {"bob", "c1"}})
    moved: dict[str, Any] = {"valid_from": JANUARY, "valid_to": FEBRUARY, "billing_account_id": "b"}
    months.do(agreements.change_account, tenant="a", **moved)
    months.build()


@pytest.mark.parametrize("item", ["colony_day", "tokens"])
def test_what_a_plan_charged_for_the_erased_stays_when_the_whole_month_moves(months: Months, item: str) -> None:
    colony_days(months, *(["a", "b"] if item == "colony_day" else []))
    for account in "ab" if item == "tokens" else "":
        plan: dict[str, Any] = {"billing_account_id": account, "pricing": "per_unit", "unit_price": Decimal(10)}
        months.do(agreements.set_plan_item, item_id=account, item=item, **plan, valid_from=JANUARY, valid_to=FEBRUARY)
    move_january_of_the_erased(months)
    assert months.owed() == {"INV-2025-01-a-USD": 20, "INV-2025-01-b-USD": 10, "INV-2025-02-a-USD": -10}


def test_credit_pays_what_a_plan_charged_for_the_erased_when_the_whole_month_moves(months: Months) -> None:
    granted: dict[str, Any] = {"account": "a", "amount": Decimal(100), "reason": "r", "granted_on": date(2024, 12, 2)}
    months.do(agreements.grant_credit, grant="g", **granted)
    colony_days(months, "a", "b")
    move_january_of_the_erased(months)
    assert months.owed() == {"INV-2025-01-b-USD": 10}


def test_a_day_of_the_erased_that_moves_back_is_built_anew(months: Months) -> None:
    """Its lines are others, and an incremental run builds the days whose fingerprint is another one."""
    turn(months, "s1", date(2025, 1, 5))
    turn(months, "s2", date(2025, 1, 20))
    months.close(JANUARY)
    move: dict[str, Any] = {"tenant": "a", "valid_from": date(2025, 1, 15)}
    months.do(agreements.change_account, **move, billing_account_id="b")
    months.do(agreements.change_account, tenant="a", valid_from=date(2025, 4, 1), reporting_timezone="Europe/Zurich")
    months.close(JANUARY, accounts=["b"])
    months.erase({"s2": {"bob"}})
    query = "select _fingerprint from statements.int_billing__booking_days where usage_date = date '2025-01-20'"
    before = months.connection.execute(query).fetchall()
    months.do(agreements.change_account, **move, billing_account_id="a")
    months.build()
    assert months.owed() == {"INV-2025-01-a-USD": 30, "INV-2025-01-b-USD": 15, "INV-2025-02-b-USD": -15}
    assert months.connection.execute(query).fetchall() != before
