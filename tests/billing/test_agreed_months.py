"""Months of one account under what finance decides of it, and what an erasure leaves of them: books as the commands
write them, real rating, plans, credit.

Does not belong here: years of many accounts (test_account_years.py), lines that are told (test_closing.py).
"""

from collections.abc import Callable, Mapping
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from pipelines.billing import agreements, books, closing, periods, redaction
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

    def settle(self, month: date, model: str, kind: str) -> None:
        """A model that is known and has no price: let go by name, or kept for later."""
        alias = {"alias_id": model, "model": model, "provider_name": "p", "price_model": model, "recorded_at": START}
        if model not in {row["model"] for row in books.read(books.ALIASES, [self.folder])}:
            books.append(books.ALIASES, self.folder, [dict.fromkeys(books.ALIASES.columns) | alias])
        settled = {
            "settlement_id": f"{kind} {model}", "billing_account_id": "a", "billing_period": month, "kind": kind,
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

    def ready(self, month: date, accounts: list[str] | None = None) -> list[closing.Readiness]:
        """The checklist of each account, five days after the month's end."""
        book, as_of = periods.read(files.book_path(self.folder)), periods.end_of(month) + timedelta(days=5)
        return closing.readiness(self.connection, book, month, as_of=as_of, checks=[MET], accounts=accounts)

    def close(self, month: date, accounts: list[str] | None = None, **waived: str) -> None:
        """Both steps, five days after the month's end."""
        self.build()
        given: dict[str, Any] = {
            "actor": "ada", "reason": "r", "as_of": periods.end_of(month) + timedelta(days=5), "checks": [MET],
            "waived": {"grace": "told so", "arrivals": "told so", **waived}, "accounts": accounts,
        }  # fmt: skip
        if any(item.status == "open" for item in self.ready(month, accounts)):
            closing.close(self.connection, self.folder, month, **given, signed="")
        signed = closing.signature(item for item in self.ready(month, accounts) if item.status == "closing")
        closing.close(self.connection, self.folder, month, **given, signed=signed)
        self.build()

    def erase(self, sessions: Mapping[str, set[str]]) -> None:
        """The turns of sessions and these words, out of the warehouse and of what was sealed."""
        gone = {turn["turn_id"] for turn in self.turns if turn["session_id"] in sessions}
        words = gone.union(sessions, *sessions.values())
        redaction.redact(self.folder / "exports", self.folder, words, at=periods.end_of(FEBRUARY))
        self.turns = [turn for turn in self.turns if turn["turn_id"] not in gone]
        self.connection.execute("delete from core.int_sessions__tree_resolved where session_id in ?", [list(sessions)])
        files.reload(self.connection, self.folder)
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


def test_a_commitment_is_owed_for_a_month_in_which_nobody_uses_anything(months: Months) -> None:
    months.turn(date(2025, 1, 5))
    commitment = COMMITMENT | {"commit_amount": Decimal(100), "valid_from": JANUARY, "valid_to": APRIL}
    months.do(agreements.set_plan_item, item_id="p", **commitment)
    for month in (JANUARY, FEBRUARY, MARCH):
        months.close(month)
    assert months.payable() == {f"INV-2025-0{number}-a-USD": 100 for number in (1, 2, 3)}


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


@pytest.mark.parametrize("is_erased_later", [False, True])
def test_erased_colonies_are_counted_as_they_were(months: Months, is_erased_later: bool) -> None:
    """Each colony and day once, in a plan that counts them: also if one more is erased, and if usage comes late."""
    months.do(agreements.change_account, tenant="a", valid_from=JANUARY, charged_by="plan")
    plan = {"billing_account_id": "a", "item": "colony_day", "pricing": "per_unit", "unit_price": Decimal(10)}
    months.do(agreements.set_plan_item, item_id="p", **plan, valid_from=JANUARY)
    for session, user, colony in (("s1", "bob", "c1"), ("s2", "bob", "c2"), ("s3", "eve", "c3"), ("s4", "ada", "c4")):
        months.connection.execute(
            "insert into core.int_sessions__tree_resolved values ('a', ?, ?, 'x', ?, ?)",
            [session, user, session, colony],
        )
        months.turn(date(2025, 1, 6))
        months.turns[-1]["session_id"] = session
    months.close(JANUARY)
    before = months.payable()
    assert before["INV-2025-01-a-USD"] == 40
    months.erase({"s1": {"bob", "c1"}, "s2": {"c2"}})
    assert months.payable() == before
    if is_erased_later:
        months.erase({"s3": {"eve", "c3"}})
        assert months.payable() == before
    months.turn(date(2025, 1, 7))
    months.turns[-1]["session_id"] = "s4"
    months.build()
    assert months.payable() == before | {"INV-2025-02-a-USD": 10}


def test_usage_that_moved_and_was_erased_then_is_billed_to_one_account(months: Months) -> None:
    """And counts towards the commitment of that one."""
    commitment = COMMITMENT | {"commit_amount": Decimal(100), "valid_from": JANUARY, "valid_to": FEBRUARY}
    months.do(agreements.set_plan_item, item_id="p", **commitment)
    for day, session in ((date(2025, 1, 5), "s1"), (date(2025, 1, 20), "s2")):
        months.turn(day)
        months.turns[-1]["session_id"] = session
    months.close(JANUARY)
    months.do(agreements.change_account, tenant="a", valid_from=date(2025, 1, 15), billing_account_id="b")
    months.close(JANUARY, accounts=["b"])
    right = {"INV-2025-01-a-USD": 100, "INV-2025-01-b-USD": 15, "INV-2025-02-a-USD": 0}
    assert months.payable() == right
    months.erase({"s2": {"bob"}})
    assert months.payable() == right
    months.close(FEBRUARY)
    assert months.payable() == right


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


def test_what_is_left_of_an_account_that_ended_is_on_the_checklist(months: Months) -> None:
    """Usage that was settled for later, and what comes late of a month that it closed last."""
    months.do(agreements.open_account, account="b", tenant="b", name="B", currency="USD", valid_from=JANUARY)
    months.turn(date(2025, 1, 5))
    months.turn(date(2025, 1, 6), "x")
    months.use("b", date(2025, 2, 5), (0, 10**6))
    months.do(agreements.close_account, tenant="a", last_day_after=FEBRUARY)
    months.settle(JANUARY, "x", "late")
    months.close(JANUARY)
    (asked,) = (item for item in months.ready(FEBRUARY) if item.account == "a")
    assert [condition.name for condition in asked.unmet() if condition.name == "exceptions"] == ["exceptions"]
    months.settle(FEBRUARY, "x", "write_off")
    months.close(FEBRUARY)
    assert [item.account for item in months.ready(MARCH)] == ["b"]
    months.turn(date(2025, 1, 7))
    months.build()
    (late,) = (item for item in months.ready(APRIL) if item.account == "a")
    (order,) = (condition for condition in late.unmet() if condition.name == "order")
    assert order.settled_by == "apiary month-end 2025-03 --account a"
    months.close(MARCH)
    assert months.payable()["INV-2025-03-a-USD"] == 15
    assert [item.account for item in months.ready(APRIL)] == ["b"]


def test_the_first_month_that_an_account_closes_asks_for_those_before_it(months: Months) -> None:
    for month in (JANUARY, FEBRUARY):
        months.turn(month.replace(day=5))
    with pytest.raises(periods.NotReadyError, match="2025-01 has rows and is open: they would be billed as late"):
        months.close(FEBRUARY)
    months.close(FEBRUARY, order="the months before were billed by hand")
    book = periods.read(files.book_path(months.folder))
    assert book.status(JANUARY, "a") == "closed"
    assert months.payable() == {"INV-2025-02-a-USD": 15, "INV-2025-03-a-USD": 15}


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
