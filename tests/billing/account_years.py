"""Years of many accounts at once, and what their invoices come to, worked out a second time in Python's decimals.

The oracle shares nothing with the SQL: it goes through accounts and months one after the other. Does not belong here:
what is compared (test_account_years.py).
"""

import calendar
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal, localcontext
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from pipelines.billing import books, ledger
from pipelines.billing.prices import Price, Sheet, Source, decide, propose
from tests.billing.ledgers import BUILT, CHARGED, RATED, rating_tables
from tests.warehouse import schema_of

Row = dict[str, Any]
YEAR = 2025
MONTHS = [date(YEAR, month, 1) for month in range(1, 13)]
START = datetime(2024, 6, 1, tzinfo=UTC)
PRICES = {"input_uncached": Decimal("3.123456789"), "output": Decimal("15.000000001")}
NANO, MILLIONTH = Decimal("1E-9"), Decimal("0.000001")


def days_of(month: date) -> int:
    return calendar.monthrange(month.year, month.month)[1]


def month_of(day: date) -> date:
    return day.replace(day=1)


class Years:
    """A warehouse of accounts whose books and turns are generated; time is told, and months close for all at once."""

    def __init__(self, models: Mapping[str, str], folder: Path, accounts: int, seed: int) -> None:
        self.models, self.folder, self.rng = models, folder, random.Random(seed)
        self.books: dict[str, list[Row]] = defaultdict(list)
        self.turns: list[Row] = []
        self.recorded_at = START
        self.connection = duckdb.connect(":memory:")
        self.connection.execute("attach ':memory:' as warehouse; use warehouse; set TimeZone = 'UTC'")
        rating_tables(self.connection)
        self._sign_prices()
        for number in range(accounts):
            self._open(f"a{number:05}")
        self._write()
        names = ("stg_billing__knowledge", *RATED, *BUILT, *CHARGED)
        self.connection.execute("drop table statements.int_billing__account_months")
        for name in ("dim_billing_accounts", "fct_rated_lines", "fct_charges"):
            self.connection.execute(f"drop table marts.{name}")
        ordered = _in_order(names, models)
        # Views are planned anew wherever they are read, and those on views on views longer than all the rest takes.
        self.tables = [name for name in ordered if not name.startswith("stg_")]
        for name in ordered:
            kind = "table" if name in self.tables else "view"
            self.connection.execute(f"create {kind} {schema_of(name)}.{name} as {models[name]}")

    def build(self) -> None:
        """Everything anew from the books and the turns."""
        ledger.load(self.connection, self.folder)
        self.connection.execute("delete from marts.fct_llm_turns; delete from rating.int_billing__rating_days")
        self.connection.register("given", pa.Table.from_pylist(self.turns))
        self.connection.execute(
            """
            insert into marts.fct_llm_turns by name select * from given;
            insert into rating.int_billing__rating_days
            select distinct tenant_id, usage_date, 1, 1 from given
            """
        )
        self.connection.unregister("given")
        for name in self.tables:
            self.connection.execute(f"create or replace table {schema_of(name)}.{name} as {self.models[name]}")

    def use(self, account: str, day: date, tokens: tuple[int, int]) -> None:
        """A turn."""
        self.turns.append({
            "turn_id": f"t{len(self.turns)}", "tenant_id": account, "session_id": "s", "model": "m", "usage_date": day,
            "occurred_at": datetime.combine(day, datetime.min.time(), UTC) + timedelta(hours=12),
            "input_tokens": tokens[0], "output_tokens": tokens[1], "cache_read_input_tokens": 0,
            "cache_write_input_tokens": 0,
        })  # fmt: skip

    def correct(self) -> None:
        """What changes after months were closed: late usage, a plan and an agreement put right back in time."""
        self.recorded_at += timedelta(days=1)
        changed: dict[str, list[Row]] = defaultdict(list)
        for row in self.books["billing_accounts"]:
            account, rng = row["tenant_id"], self.rng
            if rng.random() < 0.4:
                self.use(account, date(YEAR, rng.randint(1, 5), rng.randint(1, 28)), (rng.randint(0, 9**6), 7))
            for name, column in (("plan_items", "unit_price"), ("contract_rates", "factor")):
                for old in self.books[name]:
                    if old["billing_account_id"] == account and old[column] is not None and rng.random() < 0.3:
                        changed[name].append(old | {column: old[column] / 2, "recorded_at": self.recorded_at})
        for name, rows in changed.items():
            self.books[name] += rows
        self._write(changed)

    def _sign_prices(self) -> None:
        source = Source(name="operator", version="1", sha256="0" * 64)
        sheet = Sheet(
            provider_name="p", model="m", source=source, valid_from=START,
            prices=tuple(Price(component=name, unit_price=price) for name, price in PRICES.items()),
        )  # fmt: skip
        propose([self.folder], [sheet], now=START)
        decide([self.folder], [sheet.sheet_id], "approve", by="f", reason="r", now=START)
        self.books["model_aliases"].append(
            {
                "alias_id": "m",
                "model": "m",
                "provider_name": "p",
                "price_model": "m",
                "note": None,
                "recorded_at": START,
            }
        )
        for number, month in enumerate(MONTHS):
            for currency, base in (("EUR", "0.9"), ("JPY", "150")):
                self.books["fx_rates"].append({
                    "fx_rate_id": f"{currency}{number}", "currency_from": "USD", "currency_to": currency, "source": "x",
                    "rate": Decimal(base) + Decimal(number) / 1000, "valid_from": month, "recorded_at": START,
                })  # fmt: skip

    def _open(self, account: str) -> None:
        rng, known = self.rng, {"billing_account_id": account, "recorded_at": START}

        def amount(most: int) -> Decimal:
            return Decimal(rng.randint(1, most * 10**6)).scaleb(-6)

        self.books["billing_accounts"].append(known | {
            "tenant_id": account, "name": account, "currency": rng.choice(["USD", "USD", "EUR", "JPY"]),
            "reporting_timezone": "UTC", "charged_by": rng.choice(["tokens", "tokens", "plan"]),
            "valid_from": None, "valid_to": None,
        })  # fmt: skip
        if rng.random() < 0.4:
            first = date(YEAR, rng.randint(1, 6), rng.randint(1, 28))
            self.books["contract_rates"].append(known | dict.fromkeys(("provider_name", "component", "note")) | {
                "contract_rate_id": f"{account}-rate", "model": rng.choice([None, "m*", "m"]), "unit_price": None,
                "factor": Decimal(rng.randint(1, 100)) / 100, "valid_from": first,
                "valid_to": rng.choice([None, first + timedelta(days=rng.randint(0, 200))]),
            })  # fmt: skip
        for number in range(rng.choice([0, 0, 1, 2])):
            self._plan(f"{account}-{number}", known, amount)
        for number in range(rng.choice([0, 0, 1, 2])):
            granted = date(YEAR, rng.randint(1, 12), rng.randint(1, 28))
            self.books["credit_grants"].append(known | {
                "credit_grant_id": f"{account}-g{number}", "reason": "r", "granted_by": "f", "amount": amount(30),
                "granted_on": granted, "expires_on": rng.choice([None, granted + timedelta(days=rng.randint(1, 200))]),
            })  # fmt: skip
        for month in MONTHS:
            for _ in range(rng.choice([0, 1, 1, 2])):
                self.use(
                    account, month + timedelta(days=rng.randint(0, 27)), (rng.randint(0, 10**7), rng.randint(0, 10**6))
                )

    def _plan(self, name: str, known: Row, amount: Any) -> None:
        rng = self.rng
        item = rng.choice(["seat", "tokens", "rated_cost"])
        pricing = "none" if item == "rated_cost" else rng.choice(["per_unit", "package", "graduated", "volume"])
        is_tiered = pricing in ("graduated", "volume")
        unit = 1 if item == "seat" else 10**6
        first = date(YEAR, rng.randint(1, 5), rng.choice([1, 1, 15]))
        self.books["plan_items"].append(known | {
            "plan_item_id": name, "item": item, "pricing": pricing, "note": None,
            "included_units": rng.choice([0, 2 * unit]) if item == "tokens" or pricing != "per_unit" else 0,
            "package_size": 3 * unit if pricing == "package" else None,
            "unit_price": None if is_tiered or pricing == "none" else amount(20),
            "commit_amount": amount(40) if pricing == "none" else rng.choice([None, amount(40)]), "valid_from": first,
            "valid_to": rng.choice([None, None, date(YEAR, rng.randint(6, 12), 15)]),
        })  # fmt: skip
        for edge in (0, 2 * unit, 5 * unit) if is_tiered else ():
            self.books["plan_tiers"].append(
                {"plan_item_id": name, "tier_from": edge, "unit_price": amount(5), "recorded_at": START}
            )
        for number in range(rng.randint(1, 3)) if item == "seat" else ():
            begin = date(YEAR, rng.randint(1, 12), rng.randint(1, 28))
            self.books["seats"].append(known | {
                "seat_id": f"{name}-s{number}", "user_id": f"u{number}", "valid_from": begin,
                "valid_to": rng.choice([None, begin + timedelta(days=rng.randint(0, 120))]),
            })  # fmt: skip

    def _write(self, rows: Mapping[str, list[Row]] | None = None) -> None:
        for book in books.BOOKS:
            given = (self.books if rows is None else rows).get(book.name, [])
            books.append(book, self.folder, [dict.fromkeys(book.columns) | row for row in given])
        books.load(self.connection, [self.folder])


def _in_order(names: Iterable[str], models: Mapping[str, str]) -> list[str]:
    """Models after those that they read."""
    left, done = list(dict.fromkeys(names)), []
    while left:
        for name in left:
            text = models[name].replace('"', "")
            if not any(
                f".{other}" in text.replace(f".{name}", "") and other != name and _reads(text, other) for other in left
            ):
                done.append(name)
                left.remove(name)
                break
        else:
            raise AssertionError(f"models in a circle: {left}")
    return done


def _reads(text: str, name: str) -> bool:
    return any(f".{name}{end}" in text for end in ("\n", " ", ")", ";")) or text.endswith(f".{name}")


# the oracle -----------------------------------------------------------------------------------------------------------


def truth(years: Years) -> dict[tuple[str, date], Decimal]:
    """What each account owes for each month, if everything that is known now had been known then."""
    with localcontext(prec=60):
        return {
            key: owed for account in years.books["billing_accounts"] for key, owed in _account(years, account).items()
        }


def _last(rows: Iterable[Row], *key: str) -> list[Row]:
    found: dict[tuple[Any, ...], Row] = {}
    for row in sorted(rows, key=lambda row: row["recorded_at"]):
        found[tuple(row[name] for name in key)] = row
    return list(found.values())


def _account(years: Years, account: Row) -> dict[tuple[str, date], Decimal]:
    name = account["billing_account_id"]
    mine = {book: [row for row in rows if row.get("billing_account_id") == name] for book, rows in years.books.items()}
    usage, tokens = dict.fromkeys(MONTHS, Decimal(0)), dict.fromkeys(MONTHS, 0)
    for turn in years.turns:
        if turn["tenant_id"] == name:
            month = month_of(turn["usage_date"])
            for component, count in (("input_uncached", turn["input_tokens"]), ("output", turn["output_tokens"])):
                tokens[month] += count
                if account["charged_by"] == "tokens":
                    usage[month] += count * MILLIONTH * _price(years, mine, account, component, turn["usage_date"])
    last_used = max(month_of(turn["usage_date"]) for turn in years.turns)
    charges = dict.fromkeys(MONTHS, Decimal(0))
    for item in _last(mine.get("plan_items", []), "plan_item_id"):
        for month in MONTHS:
            if not month_of(item["valid_from"]) <= month <= last_used:
                continue
            if item["valid_to"] is not None and month >= item["valid_to"]:
                continue
            cost = _charge(years, mine, item, month, tokens[month])
            base = usage[month] if item["item"] == "rated_cost" else cost
            charges[month] += cost + max((item["commit_amount"] or Decimal(0)) - base, Decimal(0))
    drawn = _drawn(mine, {month: usage[month] + charges[month] for month in MONTHS})
    return {(name, month): usage[month] + charges[month] - drawn[month] for month in MONTHS}


def _price(years: Years, mine: Mapping[str, list[Row]], account: Row, component: str, day: date) -> Decimal:
    price = PRICES[component]
    if account["currency"] != "USD":
        rates = [
            r for r in years.books["fx_rates"] if r["currency_to"] == account["currency"] and r["valid_from"] <= day
        ]
        price = (price * max(rates, key=lambda r: r["valid_from"])["rate"]).quantize(NANO, ROUND_HALF_UP)
    for rate in _last(mine.get("contract_rates", []), "contract_rate_id"):
        if rate["valid_from"] <= day and (rate["valid_to"] is None or day < rate["valid_to"]):
            price = (price * rate["factor"]).quantize(NANO, ROUND_HALF_UP)
    return price


def _charge(years: Years, mine: Mapping[str, list[Row]], item: Row, month: date, tokens: int) -> Decimal:
    if item["pricing"] == "none":
        return Decimal(0)
    held = [_held(seat, item, month) for seat in _last(mine.get("seats", []), "seat_id", "valid_from")]
    held = [(first, end) for first, end in held if first < end]
    if item["item"] == "seat" and item["pricing"] == "per_unit":
        atoms, days = int(item["unit_price"].scaleb(15)), days_of(month)
        return sum(
            (Decimal(atoms * end // days - atoms * first // days).scaleb(-15) for first, end in held), Decimal(0)
        )
    units = len(held) if item["item"] == "seat" else tokens
    scale = Decimal(1) if item["item"] == "seat" else MILLIONTH
    units = max(units - item["included_units"], 0)
    if item["pricing"] == "per_unit":
        return units * scale * item["unit_price"]
    if item["pricing"] == "package":
        return -(-units // item["package_size"]) * item["unit_price"]
    tiers = sorted(
        (t["tier_from"], t["unit_price"])
        for t in years.books["plan_tiers"]
        if t["plan_item_id"] == item["plan_item_id"]
    )
    if item["pricing"] == "volume":
        reached = [price for edge, price in tiers if edge < units]
        return units * scale * reached[-1] if reached else Decimal(0)
    ends = [edge for edge, _ in tiers[1:]] + [units]
    return sum(
        (max(min(units, end) - edge, 0) * scale * price for (edge, price), end in zip(tiers, ends, strict=True)),
        Decimal(0),
    )


def _held(seat: Row, item: Row, month: date) -> tuple[int, int]:
    end = month + timedelta(days=days_of(month))
    first = max(seat["valid_from"], item["valid_from"], month)
    return (first - month).days, (min(seat["valid_to"] or end, item["valid_to"] or end, end) - month).days


def _drawn(mine: Mapping[str, list[Row]], owed: Mapping[date, Decimal]) -> dict[date, Decimal]:
    """Month after month, from what expires first."""
    left = {grant["credit_grant_id"]: grant["amount"] for grant in mine.get("credit_grants", [])}
    found = dict.fromkeys(MONTHS, Decimal(0))
    order = sorted(mine.get("credit_grants", []), key=lambda g: (g["expires_on"] or date.max, g["granted_on"],
                                                                 g["credit_grant_id"]))  # fmt: skip
    for month in MONTHS:
        due = owed[month]
        for grant in order:
            alive = month_of(grant["granted_on"]) <= month and (
                grant["expires_on"] is None or month < grant["expires_on"]
            )
            if alive:
                part = min(left[grant["credit_grant_id"]], due)
                left[grant["credit_grant_id"]] -= part
                due -= part
                found[month] += part
    return found
