"""Plans, seats, commitments and credit against brute force: every unit, every day, every month, one after another.

R10, M3, M5, and the three billing models over the same usage. One warehouse, built once.
"""

import calendar
import random
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from pipelines.billing import books
from pipelines.billing.prices import Price, Sheet, Source, decide, propose
from tests.warehouse import Warehouse

START = datetime(2026, 1, 1, tzinfo=UTC)
MILLIONTH = Decimal("0.000001")
MONTHS = [date(2026, month, 1) for month in (1, 2, 3)]
Books = dict[str, list[dict[str, Any]]]


def amount(rng: random.Random) -> Decimal:
    return Decimal(rng.randint(1, 10**11)).scaleb(-9)


def made_books(rng: random.Random) -> Books:
    """One account for each item of a plan, so that each charge has one cause."""
    made: Books = {name: [] for name in ("accounts", "items", "tiers", "seats", "grants")}
    number = 0
    for item in ("tokens", "colony_day", "seat"):
        for pricing in ("per_unit", "package", "graduated", "volume"):
            number += 1
            account, tenant = f"A{number:02}", f"t{number:02}"
            made["accounts"].append(
                {
                    "billing_account_id": account, "tenant_id": tenant, "name": tenant, "currency": "USD",
                    "reporting_timezone": "UTC", "charged_by": "plan", "recorded_at": START,
                }
            )  # fmt: skip
            is_tiered = pricing in ("graduated", "volume")
            made["items"].append(
                {
                    "plan_item_id": f"i{number}", "billing_account_id": account, "item": item, "pricing": pricing,
                    "note": None, "included_units": rng.choice([0, 3]) if item != "seat" else 0,
                    "package_size": rng.randint(1, 7) if pricing == "package" else None,
                    "unit_price": None if is_tiered else amount(rng),
                    "commit_amount": rng.choice([None, amount(rng)]), "valid_from": date(2026, 1, 1),
                    "valid_to": None, "recorded_at": START,
                }
            )  # fmt: skip
            if is_tiered:
                edges = [0, *sorted(rng.sample(range(1, 20), 2))]
                made["tiers"] += [
                    {"plan_item_id": f"i{number}", "tier_from": e, "unit_price": amount(rng), "recorded_at": START}
                    for e in edges
                ]
            for seat in range(rng.randint(1, 9)):
                begin = date(2026, 1, 1) + timedelta(days=rng.randint(0, 60))
                end = rng.choice([None, begin + timedelta(days=rng.randint(1, 60))])
                made["seats"].append(
                    {
                        "seat_id": f"{account}-{seat}", "billing_account_id": account, "user_id": f"u{seat}",
                        "valid_from": begin, "valid_to": end, "recorded_at": START,
                    }
                )  # fmt: skip
            made["grants"] += [
                {
                    "credit_grant_id": f"{account}-{n}", "billing_account_id": account, "reason": "prepaid",
                    "granted_by": "finance", "amount": amount(rng) * 3, "recorded_at": START,
                    "granted_on": date(2026, 1, 1) + timedelta(days=rng.randint(0, 80)),
                }
                for n in range(rng.randint(0, 3))
            ]  # fmt: skip
    made["accounts"].append(
        made["accounts"][0] | {"billing_account_id": "T", "tenant_id": "by-token", "charged_by": "tokens"}
    )
    made["items"].append(
        {
            "plan_item_id": "commit", "billing_account_id": "T", "item": "rated_cost", "pricing": "none", "note": None,
            "included_units": 0, "package_size": None, "unit_price": None, "commit_amount": Decimal("0.01"),
            "valid_from": date(2026, 1, 1), "valid_to": None, "recorded_at": START,
        }
    )  # fmt: skip
    return made


def made_turns(rng: random.Random, made: Books) -> list[dict[str, Any]]:
    turns = []
    for account in made["accounts"]:
        for number in range(24):
            colony = f"colony{rng.randint(0, 2)}"
            turns.append(
                {
                    "record_id": f"r{number}", "tenant_id": account["tenant_id"], "session_id": f"{colony}s",
                    "agent_role": "queen", "model": "m", "input_tokens": rng.randint(0, 2),
                    "output_tokens": rng.randint(0, 1), "time_basis": "utc",
                    "occurred_at": START + timedelta(days=rng.randint(0, 88), seconds=rng.randint(0, 86_399)),
                }
            )  # fmt: skip
    return turns


@pytest.fixture(scope="module")
def built(dbt_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Books, Warehouse]]:
    folder, rng = tmp_path_factory.mktemp("books"), random.Random(11)
    made = made_books(rng)
    source = Source(name="operator", version="1", sha256="0" * 64)
    unit = {
        "m": [("input_uncached", "3"), ("output", "15")],
        "platform": [("seat_month", "20"), ("colony_day", "0.75")],
    }
    for number, (model, prices) in enumerate(unit.items()):
        sheet = Sheet(
            provider_name="apiary", model=model, source=source, valid_from=START,
            prices=tuple(Price(component=name, unit_price=Decimal(price)) for name, price in prices),
        )  # fmt: skip
        propose([folder], [sheet], now=START)
        decide([folder], [sheet.sheet_id], "approve", by="f", reason="r", now=START + timedelta(seconds=number))
    alias = {"alias_id": "a", "model": "m", "provider_name": "apiary", "price_model": "m", "note": None}
    books.append(books.ALIASES, folder, [alias | {"recorded_at": START}])
    for book, name in (
        (books.ACCOUNTS, "accounts"), (books.PLAN_ITEMS, "items"), (books.PLAN_TIERS, "tiers"),
        (books.SEATS, "seats"), (books.CREDIT_GRANTS, "grants"),
    ):  # fmt: skip
        books.append(book, folder, made[name])
    path = dbt_home / "warehouse.duckdb"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("APIARY_WAREHOUSE", str(path))
        warehouse = Warehouse(path, dbt_home / "target")
        warehouse.sign(folder, shipped=False)
        turns = made_turns(rng, made)
        sessions = {(turn["tenant_id"], turn["session_id"]) for turn in turns}
        warehouse.load(
            [
                *(("llm_turns", turn) for turn in turns),
                *(
                    (
                        "colonies",
                        {
                            "record_id": f"{tenant}{session}", "tenant_id": tenant, "queen_session_id": session,
                            "colony_name": session[:-1], "observed_at": START,
                        },
                    )
                    for tenant, session in sorted(sessions)
                ),
            ]
        )  # fmt: skip
        warehouse.run("--select", "+fct_charges", "+mart_billing_model_comparison")
        yield made, warehouse


def counted(warehouse: Warehouse) -> dict[tuple[str, date], dict[str, int]]:
    """What was used by account and month, counted from the lines."""
    found: dict[tuple[str, date], dict[str, Any]] = defaultdict(lambda: {"tokens": 0, "colony_day": set()})
    for account, colony, day, tokens in warehouse.query(
        "select billing_account_id, colony_id, usage_date, quantity from marts.fct_rated_lines"
    ):
        month = found[account, day.replace(day=1)]
        month["tokens"] += tokens
        if colony is not None:
            month["colony_day"].add((colony, day))
    return {key: {"tokens": m["tokens"], "colony_day": len(m["colony_day"])} for key, m in found.items()}


def held_days(seat: dict[str, Any], month: date) -> list[int]:
    days = calendar.monthrange(month.year, month.month)[1]
    every = [month + timedelta(days=number) for number in range(days)]
    return [
        number
        for number, day in enumerate(every)
        if seat["valid_from"] <= day and (seat["valid_to"] is None or day < seat["valid_to"])
    ]


def unit_by_unit(item: dict[str, Any], tiers: list[dict[str, Any]], units: int) -> Decimal:
    """The charge of an item, one unit after another."""
    scale = MILLIONTH if item["item"] == "tokens" else Decimal(1)
    units = max(units - item["included_units"], 0)
    mine = sorted((t for t in tiers if t["plan_item_id"] == item["plan_item_id"]), key=lambda t: t["tier_from"])
    total, last = Decimal(0), Decimal(0)
    for number in range(units):
        if item["pricing"] == "package":
            total += item["unit_price"] if number % item["package_size"] == 0 else 0
        elif item["pricing"] == "per_unit":
            total += scale * item["unit_price"]
        else:
            last = [t["unit_price"] for t in mine if t["tier_from"] <= number][-1]
            total += scale * last
    return scale * last * units if item["pricing"] == "volume" else total


def test_plans_equal_a_calculation_unit_by_unit(built: tuple[Books, Warehouse]) -> None:
    """R10: package, graduated, volume and plain prices, included units, commitments with true-up."""
    made, warehouse = built
    used = counted(warehouse)
    charges = {
        (account, kind, month): total
        for account, kind, month, total in warehouse.query(
            "select billing_account_id, charge_kind, billing_month, sum(amount) from marts.fct_charges"
            " where charge_kind <> 'credit' group by all"
        )
    }
    checked = 0
    for item in made["items"]:
        account = item["billing_account_id"]
        for month in MONTHS:
            seats = [s for s in made["seats"] if s["billing_account_id"] == account and held_days(s, month)]
            if item["item"] == "rated_cost":
                [(cost,)] = warehouse.query(
                    "select sum(billed_cost) from marts.fct_rated_lines where billing_account_id = 'T'"
                    f" and date_trunc('month', usage_date) = date '{month}'"
                )
                expected = cost
            elif item["item"] == "seat" and item["pricing"] == "per_unit":
                expected = sum(
                    (charges_of_seat(item["unit_price"], held_days(seat, month), month) for seat in seats),
                    Decimal(0),
                )
            else:
                units = len(seats) if item["item"] == "seat" else used[account, month][item["item"]]
                expected = unit_by_unit(item, made["tiers"], units)
            if item["item"] != "rated_cost":
                assert charges.get((account, "plan", month), 0) == expected, (item, month)
            commit = item["commit_amount"] or Decimal(0)
            assert charges.get((account, "true_up", month), 0) == max(commit - expected, 0), (item, month)
            checked += 1
    assert checked == 39


def charges_of_seat(price: Decimal, held: list[int], month: date) -> Decimal:
    """Day after day: what has run up by the end of a day, cut after fifteen digits, less what had by its beginning."""
    days = calendar.monthrange(month.year, month.month)[1]
    atoms = int(price.scaleb(15))
    return sum((Decimal(atoms * (day + 1) // days - atoms * day // days).scaleb(-15) for day in held), Decimal(0))


def test_credit_is_drawn_month_by_month_and_never_below_zero(built: tuple[Books, Warehouse]) -> None:
    """M5: the balance is the sum of the entries, never negative; a month draws what it owes, as far as there is any."""
    made, warehouse = built
    due: dict[tuple[str, date], Decimal] = defaultdict(Decimal)
    for account, month, total in warehouse.query(
        "select billing_account_id, billing_month, sum(amount) from marts.fct_charges where charge_kind <> 'credit'"
        " group by all"
    ):
        due[account, month] += total
    for account, month, total in warehouse.query(
        "select billing_account_id, cast(date_trunc('month', usage_date) as date), sum(billed_cost)"
        " from marts.fct_rated_lines group by all"
    ):
        due[account, month] += total
    expected = {}
    for account in {grant["billing_account_id"] for grant in made["grants"]}:
        balance = Decimal(0)
        for month in MONTHS:
            balance += sum(
                (
                    g["amount"]
                    for g in made["grants"]
                    if g["billing_account_id"] == account and g["granted_on"].replace(day=1) == month
                ),
                Decimal(0),
            )
            drawn = min(balance, due[account, month])
            balance -= drawn
            if drawn:
                expected[account, month] = (-drawn, balance)
    ledger = warehouse.query(
        "select billing_account_id, billing_month, entry_kind, amount, balance from marts.fct_credit_ledger"
    )
    drawn: dict[tuple[str, date], Decimal] = defaultdict(Decimal)
    for a, m, kind, n, _ in ledger:
        if kind == "drawdown":
            drawn[a, m] += n
    assert drawn == {key: amount for key, (amount, _) in expected.items()}
    balances: dict[str, Decimal] = defaultdict(Decimal)
    for a, _, _, n, _ in ledger:
        balances[a] += n
    ends = {a: max((m, b) for (account, m), (_, b) in expected.items() if account == a)[1] for a, _ in expected}
    assert all(balances[a] >= end for a, end in ends.items())
    assert len(expected) > 10
    assert all(balance >= 0 for *_, balance in ledger)
    drawn_charges = warehouse.query(
        "select billing_account_id, billing_month, amount from marts.fct_charges where charge_kind = 'credit'"
    )
    assert {(a, m): n for a, m, n in drawn_charges} == {key: amount for key, (amount, _) in expected.items()}


def test_one_account_has_one_currency(built: tuple[Books, Warehouse]) -> None:
    """M3: lines, charges and credit of an account are in its currency and no other."""
    _, warehouse = built
    for table in ("fct_rated_lines", "fct_charges", "fct_credit_ledger"):
        wrong = f"""
            select count(*) from marts.{table} as t join marts.dim_billing_accounts as a using (billing_account_id)
            where t.currency <> a.currency"""
        assert warehouse.query(wrong) == [(0,)], table


def test_three_models_over_the_same_usage(built: tuple[Books, Warehouse]) -> None:
    """The same month by seat, by token and by colony and day, each counted again from the lines."""
    made, warehouse = built
    used = counted(warehouse)
    found = warehouse.query(
        "select billing_account_id, billing_month, users, colony_days, tokens, per_seat_amount, per_colony_day_amount,"
        " per_token_amount from marts.mart_billing_model_comparison"
    )
    assert len(found) == len(made["accounts"]) * len(MONTHS)
    for account, month, users, colony_days, tokens, by_seat, by_colony, by_token in found:
        assert (tokens, colony_days) == (used[account, month]["tokens"], used[account, month]["colony_day"])
        assert (by_seat, by_colony) == (users * Decimal(20), colony_days * Decimal("0.75"))
        given, output = warehouse.query(
            "select coalesce(sum(quantity) filter (where component <> 'output'), 0),"
            " coalesce(sum(quantity) filter (where component = 'output'), 0) from marts.fct_rated_lines"
            f" where billing_account_id = '{account}' and date_trunc('month', usage_date) = date '{month}'"
        )[0]
        assert by_token == (given * 3 + output * 15) * MILLIONTH
    unlike = (
        "select count(*) from marts.mart_billing_model_comparison"
        " where not (low_per_token_amount <= per_token_amount and per_token_amount <= high_per_token_amount)"
    )
    assert warehouse.query(unlike) == [(0,)]
    billed = warehouse.query("select distinct billed_cost from marts.fct_rated_lines where rating_status = 'excluded'")
    assert billed == [(0,)], "who pays by plan is shown the cost of tokens and not charged it"
