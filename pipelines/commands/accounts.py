"""`apiary account`, `seat`, `plan`, `contract`, `credit`, `fx-rate`, `budget`, `model-policy`, `session-user`: what was
decided.

Does not belong here: what the rows mean (billing/agreements.py).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from pipelines.commands.names import model_named, say
from pipelines.commands.tables import show
from pipelines.commands.terminal import Shared, tell
from pipelines.commands.terminal import day as parse_day
from pipelines.home import Home

if TYPE_CHECKING:
    from pathlib import Path

    from pipelines.billing.agreements import Signature
    from pipelines.billing.books import Book, Row

# Columns of a book that a narrow terminal does without, in this order.
RECORDED = (
    "recorded at",
    "recorded by",
    "approved by",
    "granted by",
    "decided by",
    "note",
    "valid to",
    "reporting timezone",
)

Change = Callable[["list[Path]", "Signature", argparse.Namespace], "Row"]


def _changes(change: Change) -> Callable[[argparse.Namespace], int]:
    """A command that adds one row and says what it added."""

    def run(options: argparse.Namespace) -> int:
        from pipelines.billing import agreements, books

        home = Home.from_environment()
        folders = [books.SHIPPED, home.books]
        signature = agreements.Signature(options.by, options.approved_by, agreements.now())
        row = change(folders, signature, options)
        said = ", ".join(f"{name} {books.written(value)}" for name, value in row.items() if value is not None)
        say(f"recorded: {said}")
        say("`apiary run` brings it into the marts; what was billed otherwise before becomes a correction")
        if unseen := agreements.unseen(folders, home.published, row):
            tell(0, unseen)
        return 0

    return run


def _lists(find: Callable[[], Book]) -> Callable[[argparse.Namespace], int]:
    """A command that shows what a book says now."""

    def run(options: argparse.Namespace) -> int:
        from pipelines.billing import agreements, books

        book = find()
        rows = agreements.newest(book, [books.SHIPPED, Home.from_environment().books])
        if options.json:
            print(json.dumps(rows, default=books.written))
            return 0
        names = [name for name in book.columns if any(row[name] is not None for row in rows)]
        shown = [{name: books.written(row[name]) or None for name in names} for row in rows]
        show(shown, nothing="none is recorded", optional=RECORDED)
        return 0

    return run


def _open_account(folders: list[Path], signature: Signature, options: argparse.Namespace) -> Row:
    from pipelines.billing import agreements

    return agreements.open_account(
        folders, signature, account=options.account, tenant=options.tenant, name=options.name or options.account,
        currency=options.currency or "USD", charged_by=options.charged_by or "tokens",
        timezone=options.timezone or "UTC", valid_from=options.valid_from,
    )  # fmt: skip


def _change_account(folders: list[Path], signature: Signature, options: argparse.Namespace) -> Row:
    from pipelines.billing import agreements

    return agreements.change_account(
        folders, signature, tenant=options.tenant, valid_from=options.valid_from, valid_to=options.valid_to,
        billing_account_id=options.account, name=options.name, currency=options.currency,
        charged_by=options.charged_by, reporting_timezone=options.timezone,
    )  # fmt: skip


def _close_account(folders: list[Path], signature: Signature, options: argparse.Namespace) -> Row:
    from pipelines.billing import agreements

    return agreements.close_account(folders, signature, tenant=options.tenant, last_day_after=options.valid_to)


def _hold_seat(folders: list[Path], signature: Signature, options: argparse.Namespace) -> Row:
    from pipelines.billing import agreements

    return agreements.hold_seat(
        folders, signature, seat=options.seat or f"seat-{options.account}-{options.user}", account=options.account,
        user=options.user, valid_from=options.valid_from, valid_to=options.valid_to,
    )  # fmt: skip


def _end_seat(folders: list[Path], signature: Signature, options: argparse.Namespace) -> Row:
    from pipelines.billing import agreements

    return agreements.end_seat(folders, signature, seat=options.seat, valid_to=options.valid_to)


def _set_plan(folders: list[Path], signature: Signature, options: argparse.Namespace) -> Row:
    from pipelines.billing import agreements

    return agreements.set_plan_item(
        folders, signature, item_id=options.id, tiers=dict(options.tier), billing_account_id=options.account,
        item=options.item, pricing=options.pricing, note=options.note, included_units=options.included,
        package_size=options.package_size, unit_price=options.unit_price, commit_amount=options.commit,
        valid_from=options.valid_from, valid_to=options.valid_to,
    )  # fmt: skip


def _end_plan(folders: list[Path], signature: Signature, options: argparse.Namespace) -> Row:
    from pipelines.billing import agreements, books

    return agreements.end(folders, signature, books.PLAN_ITEMS, name=options.id, valid_to=options.valid_to)


def _set_contract(folders: list[Path], signature: Signature, options: argparse.Namespace) -> Row:
    from pipelines.billing import agreements

    return agreements.set_contract_rate(
        folders, signature, rate_id=options.id, billing_account_id=options.account, provider_name=options.provider,
        model=model_named(options.model) if options.model else None,
        component=options.component, note=options.note, factor=options.factor,
        unit_price=options.unit_price, valid_from=options.valid_from, valid_to=options.valid_to,
        is_meant=options.accept_implausible,
    )  # fmt: skip


def _end_contract(folders: list[Path], signature: Signature, options: argparse.Namespace) -> Row:
    from pipelines.billing import agreements, books

    return agreements.end(folders, signature, books.CONTRACT_RATES, name=options.id, valid_to=options.valid_to)


def _grant_credit(folders: list[Path], signature: Signature, options: argparse.Namespace) -> Row:
    from pipelines.billing import agreements

    return agreements.grant_credit(
        folders, signature, grant=options.id, account=options.account, amount=options.amount, reason=options.reason,
        granted_on=options.valid_from, expires_on=options.expires,
    )  # fmt: skip


def _number(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise argparse.ArgumentTypeError(f"{text!r} is no number: write it in digits") from None


def _pair(text: str) -> tuple[str, str]:
    start, _, end = text.partition("/")
    if not start or not end:
        raise argparse.ArgumentTypeError(f"{text!r} is no pair of currencies: write FROM/TO, like USD/EUR")
    return start, end


def _tier(text: str) -> tuple[int, Decimal]:
    start, found, price = text.partition("=")
    if not found or not start.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no tier: write UNITS=PRICE, the first 0=PRICE")
    return int(start), _number(price)


def add(group: Any, shared: Shared) -> None:
    """The commands under `apiary`."""
    signed = argparse.ArgumentParser(add_help=False)
    signed.add_argument("--by", required=True, metavar="NAME", help="who records it")
    signed.add_argument("--approved-by", required=True, metavar="NAME", help="who approved it")
    _add_accounts(group, shared, signed)
    _add_seats(group, shared, signed)
    _add_plans(group, shared, signed)
    _add_contracts(group, shared, signed)
    _add_credit(group, shared, signed)
    _add_fx_rates(group, shared, signed)
    _add_budgets(group, shared, signed)
    _add_model_policies(group, shared, signed)
    _add_session_users(group, shared, signed)


def _from(parser: Any, *, end: bool = True) -> None:
    parser.add_argument("--from", dest="valid_from", type=parse_day, required=True, metavar="D", help="first UTC day")
    if end:
        parser.add_argument("--to", dest="valid_to", type=parse_day, metavar="D", help="first day that it is over")


def _to(parser: Any) -> None:
    parser.add_argument("--to", dest="valid_to", type=parse_day, required=True, metavar="D", help="first day without")


def _list(group: Any, shared: Shared, what: str, find: Callable[[], Book]) -> None:
    listed = shared.add(group, "list", f"{what} as last recorded", _lists(find))
    listed.add_argument("--json", action="store_true", help="one array on standard output")


def _add_accounts(group: Any, shared: Shared, signed: argparse.ArgumentParser) -> None:
    def book() -> Book:
        from pipelines.billing import books

        return books.ACCOUNTS

    accounts = group.add_parser("account", help="who pays for a tenant's usage").add_subparsers(
        required=True, metavar="COMMAND"
    )
    words = argparse.ArgumentParser(add_help=False)
    words.add_argument("--tenant", required=True, metavar="ID", help="whose usage")
    words.add_argument("--name", metavar="TEXT", help="how finance calls the account")
    words.add_argument("--currency", metavar="CODE", help="of ISO 4217; default: USD")
    words.add_argument("--charged-by", choices=["tokens", "plan"], help="default: tokens")
    words.add_argument("--timezone", metavar="ZONE", help="of its people; billing days are UTC")
    opened = shared.add(accounts, "open", "let an account pay from a day on", _changes(_open_account), words, signed)
    opened.add_argument("--account", required=True, metavar="ID", help="the account")
    _from(opened, end=False)
    changed = shared.add(
        accounts, "change", "another account, name, currency or way of charging from a day on",
        _changes(_change_account), words, signed,
    )  # fmt: skip
    changed.add_argument("--account", metavar="ID", help="another account: the tenant moves")
    _from(changed)
    closed = shared.add(accounts, "close", "no account pays from a day on", _changes(_close_account), signed)
    closed.add_argument("--tenant", required=True, metavar="ID", help="whose usage")
    _to(closed)
    _list(accounts, shared, "accounts", book)


def _add_seats(group: Any, shared: Shared, signed: argparse.ArgumentParser) -> None:
    def book() -> Book:
        from pipelines.billing import books

        return books.SEATS

    seats = group.add_parser("seat", help="who holds a seat").add_subparsers(required=True, metavar="COMMAND")
    held = shared.add(seats, "hold", "a user holds a seat from a day on", _changes(_hold_seat), signed)
    held.add_argument("--account", required=True, metavar="ID", help="whose seat")
    held.add_argument("--user", required=True, metavar="ID", help="who holds it")
    held.add_argument("--seat", metavar="ID", help="its name; default: made of account and user")
    _from(held)
    ended = shared.add(seats, "end", "a seat is held no longer", _changes(_end_seat), signed)
    ended.add_argument("--seat", required=True, metavar="ID", help="its name")
    _to(ended)
    _list(seats, shared, "seats", book)


def _add_plans(group: Any, shared: Shared, signed: argparse.ArgumentParser) -> None:
    def book() -> Book:
        from pipelines.billing import books

        return books.PLAN_ITEMS

    plans = group.add_parser("plan", help="what an account pays by the month").add_subparsers(
        required=True, metavar="COMMAND"
    )
    item = shared.add(plans, "set", "an item of a plan, new or put right", _changes(_set_plan), signed)
    item.add_argument("--id", required=True, metavar="ID", help="the item's name; said again, it is put right")
    item.add_argument("--account", required=True, metavar="ID", help="whose plan")
    item.add_argument("--item", required=True, choices=["seat", "colony_day", "tokens", "rated_cost"])
    item.add_argument("--pricing", required=True, choices=["per_unit", "package", "graduated", "volume", "none"])
    item.add_argument("--unit-price", type=_number, metavar="N", help="of a unit, a package, or a million tokens")
    item.add_argument("--included", type=int, default=0, metavar="UNITS", help="units that cost nothing")
    item.add_argument("--package-size", type=int, metavar="UNITS")
    item.add_argument("--commit", type=_number, metavar="N", help="at least this much a month")
    item.add_argument("--tier", type=_tier, action="append", default=[], metavar="UNITS=PRICE")
    item.add_argument("--note", metavar="TEXT")
    _from(item)
    ended = shared.add(plans, "end", "an item ends", _changes(_end_plan), signed)
    ended.add_argument("--id", required=True, metavar="ID")
    _to(ended)
    _list(plans, shared, "items of plans", book)


def _add_contracts(group: Any, shared: Shared, signed: argparse.ArgumentParser) -> None:
    def book() -> Book:
        from pipelines.billing import books

        return books.CONTRACT_RATES

    contracts = group.add_parser("contract", help="agreed factors and prices").add_subparsers(
        required=True, metavar="COMMAND"
    )
    rate = shared.add(contracts, "set", "an agreed rate, new or put right", _changes(_set_contract), signed)
    rate.add_argument("--id", required=True, metavar="ID", help="the rate's name; said again, it is put right")
    rate.add_argument("--account", required=True, metavar="ID", help="with whom")
    rate.add_argument("--provider", metavar="NAME", help="of this provider only")
    rate.add_argument("--model", metavar="NAME", help="of this model only; `claude-*` is a group")
    rate.add_argument("--component", metavar="NAME", help="of this kind of token only")
    rate.add_argument("--factor", type=_number, metavar="N", help="on list prices, like 0.9")
    rate.add_argument("--unit-price", type=_number, metavar="N", help="of a million tokens, in the account's currency")
    rate.add_argument("--note", metavar="TEXT")
    rate.add_argument("--accept-implausible", action="store_true", help="record a factor above 2")
    _from(rate)
    ended = shared.add(contracts, "end", "a rate ends", _changes(_end_contract), signed)
    ended.add_argument("--id", required=True, metavar="ID")
    _to(ended)
    _list(contracts, shared, "contract rates", book)


def _add_credit(group: Any, shared: Shared, signed: argparse.ArgumentParser) -> None:
    def book() -> Book:
        from pipelines.billing import books

        return books.CREDIT_GRANTS

    credit = group.add_parser("credit", help="prepaid credit").add_subparsers(required=True, metavar="COMMAND")
    grant = shared.add(credit, "grant", "credit for an account", _changes(_grant_credit), signed)
    grant.add_argument("--id", required=True, metavar="ID", help="the grant's name")
    grant.add_argument("--account", required=True, metavar="ID", help="whose")
    grant.add_argument("--amount", type=_number, required=True, metavar="N", help="in the account's currency")
    grant.add_argument("--reason", required=True, metavar="TEXT")
    grant.add_argument("--expires", type=parse_day, metavar="D", help="first day that it pays no month any more")
    _from(grant, end=False)
    _list(credit, shared, "grants of credit", book)


def _add_fx_rates(group: Any, shared: Shared, signed: argparse.ArgumentParser) -> None:
    def book() -> Book:
        from pipelines.billing import books

        return books.FX_RATES

    rates = group.add_parser("fx-rate", help="rates of exchange").add_subparsers(required=True, metavar="COMMAND")
    rate = shared.add(rates, "set", "what a currency costs in another from a day on", _changes(_set_fx_rate), signed)
    rate.add_argument(
        "--pair", type=_pair, required=True, metavar="FROM/TO", help="of prices, and of the bill: USD/EUR"
    )
    rate.add_argument("--rate", type=_number, required=True, metavar="N", help="units of TO for one of FROM")
    rate.add_argument("--source", required=True, metavar="TEXT", help="whose rate it is, like ECB")
    rate.add_argument(
        "--accept-implausible", action="store_true", help="record it although the book has less than half or twice it"
    )
    _from(rate, end=False)
    _list(rates, shared, "rates of exchange", book)


def _set_fx_rate(folders: list[Path], signature: Signature, options: argparse.Namespace) -> Row:
    from pipelines.billing import agreements

    currency_from, currency_to = options.pair
    return agreements.set_fx_rate(
        folders, signature, currency_from=currency_from, currency_to=currency_to, rate=options.rate,
        source=options.source, valid_from=options.valid_from, is_meant=options.accept_implausible,
    )  # fmt: skip


def _add_budgets(group: Any, shared: Shared, signed: argparse.ArgumentParser) -> None:
    def book() -> Book:
        from pipelines.billing import books

        return books.BUDGETS

    budgets = group.add_parser("budget", help="limits on use").add_subparsers(required=True, metavar="COMMAND")
    limit = shared.add(budgets, "set", "a limit, new or put right", _changes(_set_budget), signed)
    limit.add_argument("--id", required=True, metavar="ID", help="the budget's name; said again, it is put right")
    limit.add_argument("--tenant", required=True, metavar="ID", help="whose")
    only = limit.add_mutually_exclusive_group()
    only.add_argument("--user", metavar="ID", help="of this user's use only; default: of all of the tenant's")
    only.add_argument("--colony", metavar="ID", help="of this colony's use only; watched in the warehouse alone")
    limit.add_argument(
        "--period", required=True, choices=["day", "month"], help="the UTC day or month it begins anew with"
    )
    limit.add_argument(
        "--measure", required=True, choices=["tokens", "turns", "reported_cost_usd", "rated_cost_usd"],
        help="what is counted; rated_cost_usd is watched in the warehouse alone: a device has no price book",
    )  # fmt: skip
    limit.add_argument("--limit", type=_number, required=True, metavar="N", help="use that reaches it blocks")
    limit.add_argument(
        "--warn-at", type=_number, default=Decimal("0.8"), metavar="SHARE", help="warn from this share on (0.8)"
    )
    limit.add_argument(
        "--unpriced-limit", type=int, metavar="TOKENS", help="as many tokens without a price block a budget of cost"
    )
    _from(limit)
    ended = shared.add(budgets, "end", "a budget ends", _changes(_end_budget), signed)
    ended.add_argument("--id", required=True, metavar="ID")
    _to(ended)
    _list(budgets, shared, "budgets", book)


def _set_budget(folders: list[Path], signature: Signature, options: argparse.Namespace) -> Row:
    from pipelines.billing import agreements

    return agreements.set_budget(
        folders, signature, budget_id=options.id, tenant_id=options.tenant,
        scope="user" if options.user else "colony" if options.colony else "tenant",
        scope_id=options.user or options.colony, period=options.period, measure=options.measure,
        limit_amount=options.limit, warn_at=options.warn_at, unpriced_limit_tokens=options.unpriced_limit,
        valid_from=options.valid_from, valid_to=options.valid_to,
    )  # fmt: skip


def _end_budget(folders: list[Path], signature: Signature, options: argparse.Namespace) -> Row:
    from pipelines.billing import agreements, books

    return agreements.end(folders, signature, books.BUDGETS, name=options.id, valid_to=options.valid_to)


def _add_model_policies(group: Any, shared: Shared, signed: argparse.ArgumentParser) -> None:
    def book() -> Book:
        from pipelines.billing import books

        return books.MODEL_POLICIES

    policies = group.add_parser("model-policy", help="how usage is rated whose source names no model").add_subparsers(
        required=True, metavar="COMMAND"
    )
    policy = shared.add(policies, "set", "say how it is rated from a day on", _changes(_set_model_policy), signed)
    policy.add_argument("--tenant", metavar="ID", help="whose usage; default: everybody's")
    policy.add_argument(
        "--rule", required=True, choices=["session", "default", "unknown"],
        help="session: as the model that its session used then, else the default; default: always as the default;"
        " unknown: it has no price",
    )  # fmt: skip
    policy.add_argument("--default-model", metavar="NAME", help="as the logs write it, like openai/gpt-5")
    _from(policy)
    _list(policies, shared, "policies", book)


def _set_model_policy(folders: list[Path], signature: Signature, options: argparse.Namespace) -> Row:
    from pipelines.billing import agreements

    return agreements.set_model_policy(
        folders, signature, tenant=options.tenant, rule=options.rule, default_model=options.default_model,
        valid_from=options.valid_from, valid_to=options.valid_to,
    )  # fmt: skip


def _add_session_users(group: Any, shared: Shared, signed: argparse.ArgumentParser) -> None:
    def book() -> Book:
        from pipelines.billing import books

        return books.SESSION_USERS

    users = group.add_parser("session-user", help="whose a session is that several users have").add_subparsers(
        required=True, metavar="COMMAND"
    )
    opened = shared.add(users, "open", "sessions of which no evidence tells whose they are", _open_session_users)
    opened.add_argument("--json", action="store_true", help="one array on standard output")
    decided = shared.add(users, "set", "say whose a session is", _changes(_decide_user), signed)
    decided.add_argument("--tenant", required=True, metavar="ID", help="whose device told of it")
    decided.add_argument("--session", required=True, metavar="ID", help="as `apiary session-user open` shows it")
    decided.add_argument("--user", required=True, metavar="ID", help="who used it")
    _list(users, shared, "decisions", book)


def _decide_user(folders: list[Path], signature: Signature, options: argparse.Namespace) -> Row:
    from pipelines.billing import agreements

    return agreements.decide_user(folders, signature, tenant=options.tenant, session=options.session, user=options.user)


def _open_session_users(options: argparse.Namespace) -> int:
    from pipelines.billing import agreements, books

    rows = agreements.users_in_question(Home.from_environment().published)
    if options.json:
        print(json.dumps(rows, default=books.written))
        return 0
    shown = [{name: books.written(value) for name, value in row.items()} for row in rows]
    show(shown, nothing="no session has several users, as far as is published")
    return 0
