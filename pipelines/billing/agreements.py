"""Accounts, seats, plans, contract rates and credit as commands change them: a row is added, none is ever changed.

Each row says from when it is true (`valid_from`), when it was known (`recorded_at`), who recorded and who approved it.
Of two rows about one thing the one recorded last speaks, for the days that it is about: what was billed of them before
becomes a correction. Does not belong here: reading and writing books (books.py), charging (models/).
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb

from pipelines.billing import books
from pipelines.billing.books import FINER_CURRENCIES, UNATTRIBUTED, Book, BookError, Row
from pipelines.contract.keys import is_slug
from pipelines.contract.numbers import plain

TIERED = ("graduated", "volume")
PLAUSIBLE_FACTOR = 2  # on a list price, or a known rate of exchange: beyond it a point was misplaced, or it is meant
_CURRENCY = re.compile(r"[A-Z]{3}")


@dataclass(frozen=True)
class Signature:
    """Who records a row, who approved it, and when it was recorded. Raises BookError without a name."""

    recorded_by: str
    approved_by: str
    recorded_at: datetime

    def __post_init__(self) -> None:
        if not self.recorded_by.strip() or not self.approved_by.strip():
            raise BookError("a row needs who records it and who approved it: --by, --approved-by")

    @property
    def columns(self) -> Row:
        """As a row says it."""
        return {"recorded_by": self.recorded_by, "approved_by": self.approved_by, "recorded_at": self.recorded_at}


def open_account(
    folders: Sequence[Path], signature: Signature, *, account: str, tenant: str, name: str, currency: str,
    charged_by: str = "tokens", timezone: str = "UTC", valid_from: date,
) -> Row:  # fmt: skip
    """Let an account pay for a tenant's usage from a UTC day on, up to the day from which another one does.

    Raises BookError if another one does on that day.
    """
    if payer := payer_on(folders, tenant, valid_from):
        raise BookError(f"{payer['billing_account_id']} pays for {tenant} on {valid_from}: move the tenant instead")
    paid = (day for day in _changes(folders, tenant) if day > valid_from and payer_on(folders, tenant, day))
    row = {
        "billing_account_id": account, "tenant_id": tenant, "name": name, "currency": currency,
        "reporting_timezone": timezone, "charged_by": charged_by, "valid_from": valid_from,
        "valid_to": next(paid, None),
    }  # fmt: skip
    return _add(books.ACCOUNTS, folders, row | signature.columns)


def change_account(
    folders: Sequence[Path], signature: Signature, *, tenant: str, valid_from: date, valid_to: date | None = None,
    **changes: str | None,
) -> Row:  # fmt: skip
    """Another account, name, currency, zone or way of charging for a tenant from a UTC day on; up to one, if named.

    What is not named stays as it is said of each of these days, also where it changes among them. Days that another
    account pays for stay its own, unless the tenant moves.
    Raises BookError if nobody pays for the tenant on the first of them, or nothing would change.
    """
    first = payer_on(folders, tenant, valid_from)
    if first is None:
        raise BookError(f"no account pays for {tenant} on {valid_from}: open one")
    new = {name: value for name, value in changes.items() if value is not None}
    within = [day for day in _changes(folders, tenant) if valid_from < day and (valid_to is None or day < valid_to)]
    rows = []
    for start, end in zip([valid_from, *within], [*within, valid_to], strict=True):
        payer = payer_on(folders, tenant, start)
        if payer is None or all(payer[name] == value for name, value in new.items()):
            continue
        if "billing_account_id" not in new and payer["billing_account_id"] != first["billing_account_id"]:
            continue
        row = payer | new | {"valid_from": start, "valid_to": end}
        edges = {start, end} & {valid_from, valid_to}
        if row["charged_by"] != payer["charged_by"] and any(day and day.day != 1 for day in edges):
            raise BookError("how an account is charged changes on the first day of a month: a plan counts whole months")
        rows.append(row)
    if not rows:
        raise BookError(f"{tenant} is charged like that on {valid_from} already: nothing was recorded")
    for row in rows:
        _add(books.ACCOUNTS, folders, row | signature.columns)
    return rows[0] | signature.columns


def close_account(folders: Sequence[Path], signature: Signature, *, tenant: str, last_day_after: date) -> Row:
    """No account pays for a tenant's usage from a UTC day on: it is nobody's until one is opened.

    Raises BookError if nobody pays for it then.
    """
    if payer_on(folders, tenant, last_day_after) is None:
        raise BookError(f"no account pays for {tenant} on {last_day_after}")
    row = {
        "billing_account_id": UNATTRIBUTED, "tenant_id": tenant, "name": "no account", "currency": "USD",
        "reporting_timezone": "UTC", "charged_by": "tokens", "valid_from": last_day_after, "valid_to": None,
    }  # fmt: skip
    return _add(books.ACCOUNTS, folders, row | signature.columns)


def _changes(folders: Sequence[Path], tenant: str) -> list[date]:
    """The days on which it may change who pays for a tenant, or how."""
    rows = [row for row in books.read(books.ACCOUNTS, folders) if row["tenant_id"] == tenant]
    return sorted({row[name] for row in rows for name in ("valid_from", "valid_to")} - {None})


def payer_on(folders: Sequence[Path], tenant: str, day: date) -> Row | None:
    """The row that says who pays for a tenant on a UTC day; None if nobody does."""
    rows = [
        row
        for row in books.read(books.ACCOUNTS, folders)
        if row["tenant_id"] == tenant
        and (row["valid_from"] or date.min) <= day
        and (row["valid_to"] is None or day < row["valid_to"])
    ]
    last = max(rows, key=lambda row: row["recorded_at"], default=None)
    return None if last is None or last["billing_account_id"] == UNATTRIBUTED else last


def hold_seat(
    folders: Sequence[Path], signature: Signature, *, seat: str, account: str, user: str, valid_from: date,
    valid_to: date | None = None,
) -> Row:  # fmt: skip
    """A user holds a seat of an account from a day on. Said again of the same day, it is put right.

    Raises BookError if the seat is held on one of these days by another line: each day would be charged twice.
    """
    row = {
        "seat_id": seat, "billing_account_id": account, "user_id": user, "valid_from": valid_from, "valid_to": valid_to,
    }  # fmt: skip
    for held in _newest(books.SEATS, folders, ("seat_id", "valid_from")):
        if held["seat_id"] != seat or held["valid_from"] == valid_from:
            continue
        starts = valid_to is None or held["valid_from"] < valid_to
        if starts and (held["valid_to"] is None or valid_from < held["valid_to"]):
            until = f"up to {held['valid_to']}" if held["valid_to"] else "without an end"
            raise BookError(
                f"seat {seat} is held by {held['user_id']} from {held['valid_from']} {until}: end that first"
            )
    return _add(books.SEATS, folders, row | signature.columns)


def end_seat(folders: Sequence[Path], signature: Signature, *, seat: str, valid_to: date) -> Row:
    """A seat is held up to, not including, a day. Raises BookError if nobody holds it then."""
    held = _newest(books.SEATS, folders, ("seat_id", "valid_from"))
    mine = [row for row in held if row["seat_id"] == seat and row["valid_from"] <= valid_to]
    mine = [row for row in mine if row["valid_to"] is None or valid_to < row["valid_to"]]
    if not mine:
        raise BookError(f"nobody holds seat {seat} on {valid_to}")
    # Books of earlier releases have seats that two hold: the one who held it before that day, if there is one.
    mine = [row for row in mine if row["valid_from"] < valid_to] or mine
    return _add(books.SEATS, folders, mine[-1] | {"valid_to": valid_to} | signature.columns)


def decide_user(folders: Sequence[Path], signature: Signature, *, tenant: str, session: str, user: str) -> Row:
    """A session that several users of a tenant have is this one's. Said again, it is put right. Raises BookError."""
    for name, value in (("tenant", tenant), ("user", user)):
        if not is_slug(value):
            raise BookError(f"{value!r} is no {name}: lower-case letters, digits, - and _")
    return _add(
        books.SESSION_USERS, folders, {"tenant_id": tenant, "session_id": session, "user_id": user} | signature.columns
    )


def set_model_policy(
    folders: Sequence[Path], signature: Signature, *, tenant: str | None, rule: str, default_model: str | None,
    valid_from: date, valid_to: date | None = None,
) -> Row:  # fmt: skip
    """How usage whose source names no model is rated, of a tenant or, without one, of all. Raises BookError."""
    if tenant is not None and not is_slug(tenant):
        raise BookError(f"{tenant!r} is no tenant: lower-case letters, digits, - and _")
    if rule == "default" and default_model is None:
        raise BookError("the rule default needs a model: --default-model")
    row = {
        "tenant_id": tenant, "rule": rule, "default_model": default_model, "valid_from": valid_from,
        "valid_to": valid_to,
    }  # fmt: skip
    return _add(books.MODEL_POLICIES, folders, row | signature.columns)


def users_in_question(published: Path) -> list[Row]:
    """The sessions of which no evidence tells whose they are: `tenant_id`, `session_id`, `turns`, `last_turn_at`."""
    path = published / "current" / "dim_sessions.parquet"
    if not path.exists():
        return []
    with duckdb.connect() as connection:
        found = connection.execute(
            "SELECT tenant_id, session_id, turns, last_turn_at FROM read_parquet(?)"
            " WHERE user_basis = 'conflict' ORDER BY ALL",
            [str(path)],
        )
        names = [column[0] for column in found.description]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def set_plan_item(
    folders: Sequence[Path], signature: Signature, *, item_id: str, tiers: Mapping[int, Decimal] | None = None,
    **columns: Any,
) -> Row:  # fmt: skip
    """One item of a plan, new or put right. Raises BookError if what it says cannot be charged."""
    row = dict.fromkeys(books.PLAN_ITEMS.columns) | {"included_units": 0} | columns | {"plan_item_id": item_id}
    pricing = row["pricing"]
    if pricing in TIERED and 0 not in (tiers or {}):
        raise BookError(f"{pricing} prices need tiers, the first from 0: --tier 0=PRICE")
    if pricing in ("per_unit", "package") and row["unit_price"] is None:
        raise BookError(f"{pricing} prices need --unit-price")
    if pricing == "package" and not row["package_size"]:
        raise BookError("packages need --package-size")
    if pricing == "none" and row["commit_amount"] is None:
        raise BookError("an item without prices is a commitment: it needs --commit")
    if row["item"] == "seat" and pricing == "per_unit" and row["included_units"]:
        raise BookError("seats that are paid by the day have no included units: hold fewer seats")
    said = _said(books.PLAN_ITEMS, folders, item_id)
    _require_months(row, said)
    _require_start(item_id, row, said)
    made = _add(books.PLAN_ITEMS, folders, row | signature.columns)
    for tier_from, price in sorted((tiers or {}).items()):
        tier = {"plan_item_id": item_id, "tier_from": tier_from, "unit_price": price}
        _add(books.PLAN_TIERS, folders, tier | signature.columns)
    return made


def set_contract_rate(
    folders: Sequence[Path], signature: Signature, *, rate_id: str, is_meant: bool = False, **columns: Any
) -> Row:
    """An agreed factor or unit price, new or put right. `model` may end in `*`: a group.

    Raises BookError, also for a factor that is likely a slip, unless it `is_meant`.
    """
    row = dict.fromkeys(books.CONTRACT_RATES.columns) | columns | {"contract_rate_id": rate_id}
    if (row["factor"] is None) == (row["unit_price"] is None):
        raise BookError("a contract rate is a factor on list prices or a unit price: --factor or --unit-price")
    if (factor := row["factor"] or Decimal(0)) > PLAUSIBLE_FACTOR and not is_meant:
        raise BookError(
            f"a factor of {plain(factor)} is so many times the list price: --accept-implausible, if it is meant"
        )
    _require_start(rate_id, row, _said(books.CONTRACT_RATES, folders, rate_id))
    return _add(books.CONTRACT_RATES, folders, row | signature.columns)


def _require_months(item: Row, said: Iterable[Row]) -> None:
    """A month's plan is charged as a whole: of two that share a month both would be. Days that are `said` already, as
    earlier releases took them, can be put right, and an item be taken back on its first day."""
    is_by_day = item["item"] == "seat" and item["pricing"] == "per_unit"
    known = {row[name] for row in said for name in ("valid_from", "valid_to")} | {None}
    if not is_by_day and any(day not in known and day.day != 1 for day in (item["valid_from"], item["valid_to"])):
        raise BookError("only seats are paid by the day: a plan begins and ends on the first day of a month")


def _require_start(name: str, row: Row, said: Iterable[Row]) -> None:
    """A row speaks for all days of its id: from a later day on it would take back what was billed before."""
    for before in said:
        if row["valid_from"] > before["valid_from"]:
            raise BookError(
                f"{name} is said from {before['valid_from']} on: let it end on {row['valid_from']}"
                f" and give what comes then another name, or say it again from {before['valid_from']}"
            )


def _said(book: Book, folders: Sequence[Path], name: str) -> list[Row]:
    """What a book says now of the id `name`: one row, or none."""
    (key,) = (column for column in book.key if column != "recorded_at")
    return [row for row in _newest(book, folders, (key,)) if row[key] == name]


def end(folders: Sequence[Path], signature: Signature, book: Book, *, name: str, valid_to: date) -> Row:
    """Let a plan item, a contract rate or a budget end on a day. Raises BookError if there is none."""
    found = _said(book, folders, name)
    if not found:
        raise BookError(f"{name} is not in {book.name}")
    row = found[0] | {"valid_to": valid_to}
    if book is books.PLAN_ITEMS:
        _require_months(row, found)
    return _add(book, folders, row | signature.columns)


def set_budget(folders: Sequence[Path], signature: Signature, *, budget_id: str, tenant_id: str, **columns: Any) -> Row:
    """A limit on use, new or put right. Raises BookError."""
    if not is_slug(tenant_id):
        raise BookError(f"{tenant_id!r} is no tenant: lower-case letters, digits, - and _")
    row = dict.fromkeys(books.BUDGETS.columns) | columns | {"budget_id": budget_id, "tenant_id": tenant_id}
    return _add(books.BUDGETS, folders, row | signature.columns)


def move_budgets(connection: duckdb.DuckDBPyConnection, folders: Sequence[Path], *, at: datetime) -> dict[str, str]:
    """Bring budgets that were a seed of dbt up to release 0.1.0 into the book, once; why those that do not fit stay.

    What stays is tried again until the book has a budget of its id (`apiary budget set`). Raises BookError for a book
    that cannot be read.
    """
    found = connection.execute(
        "SELECT count(*) FROM duckdb_tables() WHERE schema_name = 'seeds' AND table_name = 'budgets'"
    ).fetchone()
    if not found or not found[0]:
        return {}
    known = {row["budget_id"] for row in books.read(books.BUDGETS, folders)}
    signature, refused = Signature("budgets.csv", "budgets.csv", at), {}
    for row in connection.execute("SELECT * FROM seeds.budgets ORDER BY budget_id").to_arrow_table().to_pylist():
        if row["budget_id"] in known:
            continue
        try:
            _add(books.BUDGETS, folders, row | signature.columns)
        except BookError as error:  # one tenant's budget must not stop the run of all
            refused[row["budget_id"]] = str(error)
    if not refused:
        connection.execute("DROP TABLE seeds.budgets")
    return refused


def grant_credit(
    folders: Sequence[Path], signature: Signature, *, grant: str, account: str, amount: Decimal, reason: str,
    granted_on: date, expires_on: date | None = None,
) -> Row:  # fmt: skip
    """Prepaid credit of an account, in its currency of that day. Raises BookError if there is no such account then."""
    first = _first_day(folders, account)
    if amount <= 0:
        raise BookError(f"amount is {plain(amount)!r}: credit is above 0")
    if first is not None and granted_on < first:
        raise BookError(f"credit before {first}, the first day of {account}, would pay nothing")
    row = {
        "credit_grant_id": grant, "billing_account_id": account, "reason": reason, "amount": amount,
        "granted_by": signature.recorded_by, "granted_on": granted_on, "expires_on": expires_on,
        "approved_by": signature.approved_by, "recorded_at": signature.recorded_at,
    }  # fmt: skip
    return _add(books.CREDIT_GRANTS, folders, row)


def set_fx_rate(
    folders: Sequence[Path], signature: Signature, *, currency_from: str, currency_to: str, rate: Decimal, source: str,
    valid_from: date, is_meant: bool = False,
) -> Row:  # fmt: skip
    """What a unit of one currency costs in another from a UTC day on, until a rate of a later day; of one day, the rate
    recorded last.

    Raises BookError, also for a rate that those in the book contradict, unless it `is_meant`.
    """
    for currency in (currency_from, currency_to):
        _require_currency(currency)
    if currency_from == currency_to or not rate:
        raise BookError(f"a rate from {currency_from} to {currency_to} is of two currencies, and above 0")
    for known, there in _rates_around(folders, currency_from, currency_to, valid_from) if not is_meant else ():
        if not Decimal(1) / PLAUSIBLE_FACTOR <= rate / there <= PLAUSIBLE_FACTOR:
            raise BookError(
                f"the book has {known}, where this says {plain(rate)} {currency_to} for one {currency_from}:"
                " --accept-implausible, if it is meant"
            )
    row = {
        "fx_rate_id": f"{currency_from}-{currency_to}-{valid_from}-{signature.recorded_at:%Y%m%dT%H%M%S}",
        "currency_from": currency_from, "currency_to": currency_to, "source": source, "rate": rate,
        "valid_from": valid_from,
    }  # fmt: skip
    return _add(books.FX_RATES, folders, row | signature.columns)


def _rates_around(
    folders: Sequence[Path], currency_from: str, currency_to: str, day: date
) -> Iterator[tuple[str, Decimal]]:
    """What the book says of a pair on a day, each way round, and in words: without the rate that a new one of that day
    takes the place of, which may be the slip."""
    known = _newest(books.FX_RATES, folders, ("currency_from", "currency_to", "valid_from"))
    for is_turned, pair in enumerate([(currency_from, currency_to), (currency_to, currency_from)]):
        mine = [row for row in known if (row["currency_from"], row["currency_to"]) == pair and row["rate"]]
        mine = [row for row in mine if is_turned or row["valid_from"] != day]
        before = [row for row in mine if row["valid_from"] <= day]
        if mine:
            near = max(before, key=_start) if before else min(mine, key=_start)
            said = f"{'/'.join(pair)} at {plain(near['rate'])} from {near['valid_from']} on"
            yield said, 1 / near["rate"] if is_turned else near["rate"]


def _start(row: Row) -> date:
    start: date | None = row["valid_from"]
    return start or date.min


def _first_day(folders: Sequence[Path], account: str) -> date | None:
    """From when on an account is one; None: always. Raises BookError if there is no such account."""
    lines = [line for line in newest(books.ACCOUNTS, folders) if line["billing_account_id"] == account]
    if not lines or account == UNATTRIBUTED:
        raise BookError(f"{account} is no account: see `apiary account list`")
    return None if any(line["valid_from"] is None for line in lines) else min(map(_start, lines))


def unseen(folders: Sequence[Path], published: Path, row: Row) -> str | None:
    """Whom a row is about, if there is no such account or nothing of them is published: a slip charges nothing."""
    path = published / "current" / "dim_sessions.parquet"
    user = row.get("user_id") or (row["scope_id"] if row.get("scope") == "user" else None)
    account, tenants = row.get("billing_account_id"), {row["tenant_id"]} if row.get("tenant_id") else set()
    if account and not tenants:
        lines = [line for line in newest(books.ACCOUNTS, folders) if line["billing_account_id"] == account]
        if not lines:
            return f"{account} is no account yet: it is charged once there is, see `apiary account list`"
        tenants = {line["tenant_id"] for line in lines if user}
    if not tenants or not path.exists():
        return None
    with duckdb.connect() as connection:
        query = "SELECT DISTINCT tenant_id, user_id FROM read_parquet(?)"
        seen = [pair for pair in connection.execute(query, [str(path)]).fetchall() if pair[0] in tenants]
    where = f"tenant {', '.join(sorted(tenants))}"
    if not seen:
        return f"nothing of {where} has been seen yet"
    if user and user not in {name for _, name in seen}:
        return f"nobody called {user} has been seen in {where} yet"
    return None


def newest(book: Book, folders: Sequence[Path]) -> list[Row]:
    """What a book says now: of rows about one thing, the one recorded last."""
    return _newest(book, folders, tuple(name for name in book.key if name != "recorded_at"))


def _newest(book: Book, folders: Sequence[Path], key: Iterable[str]) -> list[Row]:
    key = tuple(key)
    found: dict[tuple[Any, ...], Row] = {}
    for row in sorted(books.read(book, folders), key=lambda row: row["recorded_at"]):
        found[tuple(row[name] for name in key)] = row
    return list(found.values())


def _require_currency(code: str) -> None:
    if not _CURRENCY.fullmatch(code):
        raise BookError(f"{code!r} is no currency: write a code of ISO 4217, three capital letters like EUR")


def _add(book: Book, folders: Sequence[Path], row: Row) -> Row:
    """Check a row as reading it would, and add it to the site's own book. Raises BookError."""
    for name in ("valid_to", "expires_on"):
        start = row.get("valid_from") or row.get("granted_on")
        if row.get(name) is not None and start is not None and row[name] < start:
            raise BookError(f"{name} {row[name]} is before {start}")
    currency = row.get("currency")
    if currency is not None:
        _require_currency(currency)
    if currency in FINER_CURRENCIES:
        raise BookError(f"{currency} is no currency that can be billed in: bills have two digits behind the point")
    for name, kind in book.columns.items():
        value = row[name]
        if value is None and name not in book.optional:
            raise BookError(f"{name} is empty")
        if value is not None:
            text = books.written(value)
            try:
                is_same = books.parsed(kind, text) == value
            except (ValueError, KeyError) as error:
                raise BookError(f"{name} is {text!r}: {error}") from None
            if wrong := books.refused(name, text, value) or (None if is_same else "no such value"):
                raise BookError(f"{name} is {text!r}: {wrong}")
    if wrong := books.contradiction(row):
        raise BookError(wrong)
    taken = {tuple(other[name] for name in book.key) for other in books.read(book, folders)}
    if tuple(row[name] for name in book.key) in taken:
        raise BookError(f"{book.name} says that already, recorded at {row['recorded_at']:%Y-%m-%d %H:%M:%S}")
    books.append(book, folders[-1], [row])
    return row


def now() -> datetime:
    """When a row is recorded."""
    return datetime.now(UTC)
