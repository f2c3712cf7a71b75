"""`apiary period` and `month-end`: what closes a month.

Does not belong here: what the commands do (billing/closing.py), statements by themselves (finance.py).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from pipelines.commands.billing_warehouse import (
    as_of_option,
    checks_of,
    export_context,
    month_argument,
    opened,
    signed_options,
)
from pipelines.commands.names import model_named, say, shown
from pipelines.commands.tables import as_json, table
from pipelines.commands.terminal import Shared, Stop, note, progress
from pipelines.contract.numbers import pluralize
from pipelines.home import Home

if TYPE_CHECKING:
    import duckdb

    from pipelines.billing.closing import Readiness
    from pipelines.billing.gate import Check
    from pipelines.billing.periods import Book


def _status(options: argparse.Namespace) -> int:
    from pipelines.billing import closing, periods

    home = Home.from_environment()
    with opened(home) as (connection, book):
        if options.period is None:
            _print_book(book)
            return 0
        period = periods.month_of(options.period)
        ready = _readiness(connection, book, period, options, checks_of(connection))
        digest = closing.signature(item for item in ready if item.status == "closing")
        if options.json:
            print(as_json({"accounts": [_told(item) for item in ready], "totals_sha256": digest}))
            return 0
        _print_readiness(connection, period, ready, as_of=options.as_of)
    return 0


def _readiness(
    connection: duckdb.DuckDBPyConnection, book: Book, period: date, options: argparse.Namespace, checks: list[Check]
) -> list[Readiness]:
    from pipelines.billing import closing

    with progress("asking what stands in the way"):
        return closing.readiness(connection, book, period, as_of=options.as_of, checks=checks, accounts=_named(options))


PARTS = {"Usage": "usage", "Purchase": "plan", "Adjustment": "commitment and adjustments", "Credit": "credit"}
"""Of what a month comes to, by FOCUS charge category."""


def _print_book(book: Book) -> None:
    rows: list[list[object]] = [
        [f"{t.period:%Y-%m}", t.after, ", ".join(t.accounts) if t.accounts else "all", t.actor, t.reason,
         f"{t.as_of:%Y-%m-%d %H:%M}"]
        for t in book.transitions
    ]  # fmt: skip
    table(["period", "became", "accounts", "by", "because", "as of (UTC)"], rows)
    for account in (None, *sorted(book.accounts)):
        if (frozen := book.closed_through(account)) is not None:
            whose = account or "accounts not named"
            say(f"{whose}: closed through {frozen:%Y-%m}; corrections go to {book.oldest_open(account):%Y-%m}")
    if all(item.after != "closed" for item in book.transitions):
        say("all open")


def _told(item: Readiness) -> dict[str, Any]:
    conditions = [asdict(condition) for condition in item.conditions]
    return {**item.told, "status": item.status, "conditions": conditions}


def _print_readiness(
    connection: duckdb.DuckDBPyConnection, period: date, ready: Sequence[Readiness], *, as_of: datetime
) -> None:
    """Where the month stands, what is in the way of each account, and what to do next."""
    from pipelines.billing import closing
    from pipelines.contract.numbers import plain

    rows: list[list[object]] = []
    for item in ready:
        unmet = ", ".join(c.name for c in item.unmet()) if item.status != "closed" else ""
        for payable in item.payables or (None,):
            parts = [payable.parts.get(category) if payable else None for category in PARTS]
            amounts = [payable.currency, plain(payable.exact), payable.payable] if payable else ["-", "0", Decimal(0)]
            amounts = [amounts[0], *parts, *amounts[1:]]
            rows.append([item.account, item.status, *amounts, unmet or "-"])
    say(f"{period:%Y-%m}")
    names = ["account", "status", "currency", *PARTS.values(), "exact", "payable", "in the way"]
    table(names, rows, optional=("exact", "in the way"))
    wanted = [(item, c) for item in ready if item.status != "closed" for c in item.unmet()]
    if wanted:
        table(
            ["account", "condition", "found", "settled by"],
            [[item.account, c.name, c.found, c.settled_by or "-"] for item, c in wanted],
        )
    if unattributed := closing.worklist(connection, period):
        say("usage without an account, on no invoice (open one: apiary account open):")
        table(
            ["tenant", "model", "tokens", "list cost USD"],
            [[tenant, model, tokens, cost if cost is not None else "no price"]
             for tenant, model, tokens, cost in unattributed],
        )  # fmt: skip
    say(f"next: {_next(period, ready, as_of=as_of)}")


def _next(period: date, ready: Sequence[Readiness], *, as_of: datetime) -> str:
    """The one command that takes the month a step further."""
    from pipelines.billing import closing, periods

    month = f"apiary month-end {period:%Y-%m}"
    early = periods.not_ended(period, as_of=as_of)
    if early and any(item.status == "open" for item in ready):
        return early
    if any(item.status == "open" and all(c.is_met for c in item.conditions if c.name == "order") for item in ready):
        return f"{month} --actor NAME --reason TEXT starts closing: late usage is waited for"
    waiting = [item for item in ready if item.status == "closing"]
    if not waiting and any(item.status == "open" for item in ready):
        return "close the earlier months first, as the table says"
    if not waiting:
        closed = f"{period:%Y-%m} is closed for {', '.join(item.account for item in ready)}"
        return f"nothing: {closed}" if ready else f"nothing: no account has a month {period:%Y-%m}"
    sign = closing.signature(waiting)[: closing.SIGNATURE_LENGTH]
    close = f"{month} --actor NAME --reason TEXT --sign {sign}"
    if any(not item.unmet() for item in waiting):
        held = sum(bool(item.unmet()) for item in waiting)
        accounts = pluralize(held, "account that is held back", "accounts that are held back")
        return close + (f" closes all but {accounts}" if held else " closes it")
    return f"settle what is in the way as the table says, then {close}"


def _require_step(options: argparse.Namespace) -> None:
    """What can be said of a step without looking at the month: that takes half a minute. Raises Stop, PeriodError."""
    from pipelines.billing import periods

    if not options.actor.strip() or not options.reason.strip():
        raise Stop(2, "a step needs a name and a reason: --actor, --reason")
    periods.require_ended(periods.month_of(options.period), as_of=options.as_of)


def _close(options: argparse.Namespace) -> int:
    _require_step(options)
    home = Home.from_environment()
    with opened(home) as (connection, _):
        _take_step(home, connection, options, checks_of(connection))
    return 0


def _take_step(
    home: Home, connection: duckdb.DuckDBPyConnection, options: argparse.Namespace, checks: list[Check]
) -> None:
    """open → closing, or closing → closed with everything that belongs to it."""
    from pipelines.billing import month_end, periods
    from pipelines.defs import dbt_project
    from pipelines.warehouse import definitions

    period = periods.month_of(options.period)
    with progress("taking the step"):
        definitions.require_built(home.warehouse, dbt_project.parsed(), "statements")
        done = month_end.take_step(
            export_context(home, connection, options, checks), home.books, period,
            actor=options.actor, reason=options.reason, waived=dict(options.waive),
            signed=options.sign, accounts=_named(options),
        )  # fmt: skip
    transition = done.transition
    say(f"{options.period} is {transition.after} for {', '.join(transition.accounts or ('all accounts',))}")
    if transition.after == "closing":
        say(f"late usage is waited for until {transition.grace_until:%Y-%m-%d %H:%M} UTC; then close it again")
        return
    say(f"sealed {(transition.seal or '')[:12]}")
    for item in done.held:
        reasons = "; ".join(f"{c.name}: {c.found}; settled by {c.settled_by}" for c in item.unmet())
        say(f"held back: {item.account}: {reasons}")
    _write_statements(home, connection, options, checks, period)


def _write_statements(
    home: Home, connection: duckdb.DuckDBPyConnection, options: argparse.Namespace, checks: list[Check], period: date
) -> None:
    from pipelines.billing import month_end

    with progress("writing statements"):
        export = export_context(home, connection, options, checks)
        written = month_end.write_statements(export, home.books, period, accounts=_named(options))
    for item in written.statements:
        if item.is_new:
            say(f"statement: {item.folder}")
    for account, reason in written.held.items():
        say(f"held back: {account}: {reason}")
    for failure in written.undelivered:
        note(failure)


def _month_end(options: argparse.Namespace) -> int:
    from pipelines.billing import ledger, periods

    home = Home.from_environment()
    period = periods.month_of(options.period)
    if options.actor or options.reason or options.sign or options.waive:
        _require_step(options)
    with opened(home) as (connection, book):
        checks = checks_of(connection)
        ready = _readiness(connection, book, period, options, checks)
        has_open = any(item.status == "open" for item in ready)
        if options.actor and (has_open or options.sign):
            _take_step(home, connection, options, checks)
            written = ledger.load(connection, home.books)
            ready = _readiness(connection, written, period, options, checks)
        elif any(item.status == "closed" for item in ready):
            _write_statements(home, connection, options, checks, period)  # after a kill between the two
        _print_readiness(connection, period, ready, as_of=options.as_of)
    return 0


def _settle(options: argparse.Namespace) -> int:
    from pipelines.billing import books, closing, periods

    home = Home.from_environment()
    period = periods.month_of(options.period)
    kind = "write_off" if options.write_off else "late"
    with opened(home) as (connection, book):
        if book.status(period, options.account) == "closed":
            raise Stop(2, f"{options.period} is closed for {options.account}: settle it in an open month")
        with progress("looking for usage without a price"):
            waiting = closing.unpriced_models(connection, period, options.account)
    models = list(map(model_named, options.model)) if options.model else waiting
    if unknown := sorted(set(models) - set(waiting)):
        raise Stop(2, f"{', '.join(shown(unknown))}: no usage of {options.account} without a price is of this model")
    if not models:
        raise Stop(2, f"{options.account} has no usage without a price up to the end of {options.period}")
    now = datetime.now(UTC)
    rows = [
        {
            "settlement_id": f"{kind}-{options.account}-{period:%Y-%m}-{model}-{now:%Y%m%dT%H%M%S%f}",
            "billing_account_id": options.account, "billing_period": period, "kind": kind, "model": model,
            "reason": options.reason, "recorded_by": options.actor, "recorded_at": now,
        }
        for model in models
    ]  # fmt: skip
    books.append(books.SETTLEMENTS, home.books, rows)
    what = "written off" if kind == "write_off" else "left to a later month"
    say(f"{what}: {', '.join(models)}; `apiary run` brings it into the statements")
    return 0


def _reopen(options: argparse.Namespace) -> int:
    from pipelines.billing import attestation, ledger, periods

    home = Home.from_environment()
    period = periods.month_of(options.period)
    with opened(home) as (connection, book):
        named = {account for item in book.transitions if item.period == period for account in item.accounts or ()}
        accounts = _named(options) or sorted(a for a in named if book.status(period, a) == "closed") or None
        transition = periods.reopen(
            book, period, actor=options.actor, reason=options.reason, as_of=options.as_of,
            requested_by=options.requested_by, accounts=accounts,
        )  # fmt: skip
        periods.write(ledger.book_path(home.books), transition)
        ledger.load(connection, home.books)
        attestation.attest(home.exports, home.books, as_of=options.as_of)
    say(f"{options.period} is open: its files stay as they are, corrections go there after the next `apiary run`")
    return 0


def _named(options: argparse.Namespace) -> list[str] | None:
    return list(options.account) if options.account else None


def _waiver(text: str) -> tuple[str, str]:
    name, found, reason = text.partition("=")
    if not found or not reason.strip():
        raise argparse.ArgumentTypeError(
            f"{text!r} is no waiver: write the condition and why, like 'arrivals=the laptop was retired'"
        )
    return name, reason


def add(group: Any, shared: Shared) -> None:
    """The commands under `apiary`."""
    month, as_of, signed = month_argument(), as_of_option(required=True), signed_options()
    accounts = argparse.ArgumentParser(add_help=False)
    accounts.add_argument("--account", action="append", metavar="ID", help="this account only; may be given again")
    closing = argparse.ArgumentParser(add_help=False)
    closing.add_argument("--sign", default="", metavar="TOTALS", help="the totals that were shown")
    closing.add_argument("--waive", type=_waiver, action="append", default=[], metavar="CONDITION=REASON")
    guided = shared.add(
        group, "month-end", "close a month, step by step: where it stands, what is open, what to do next", _month_end,
        month, as_of_option(required=False), accounts, closing,
    )  # fmt: skip
    guided.add_argument("--actor", default="", metavar="NAME", help="who takes the next step; default: only look")
    guided.add_argument("--reason", default="", metavar="TEXT", help="why")
    periods = group.add_parser("period", help="months of billing: open, closing, closed").add_subparsers(
        required=True, metavar="COMMAND"
    )
    status = shared.add(
        periods, "status", "what is closed; of one month, what stands in the way", _status,
        as_of_option(required=False), accounts,
    )  # fmt: skip
    status.add_argument("period", nargs="?", metavar="YYYY-MM")
    status.add_argument("--json", action="store_true", help="one object on standard output")
    shared.add(periods, "close", "the next step towards closed", _close, month, as_of, signed, accounts, closing)
    reopen = shared.add(
        periods, "reopen", "let corrections into a closed month", _reopen, month, as_of, signed, accounts
    )
    reopen.add_argument("--requested-by", required=True, metavar="NAME", help="who asked for it")
    settle = shared.add(periods, "settle", "decide about usage without a price", _settle, month, signed)
    settle.add_argument("--account", required=True, metavar="ID", help="whose usage")
    settle.add_argument("--model", action="append", metavar="NAME", help="of this model only; may be given again")
    how = settle.add_mutually_exclusive_group(required=True)
    how.add_argument("--write-off", action="store_true", help="bill nothing for it: its lines stand at 0")
    how.add_argument("--late", action="store_true", help="close without it: once it has a price it is billed later")
