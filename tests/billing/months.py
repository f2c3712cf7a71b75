"""Months of account `a`: books as the commands write them, real rating, plans and credit, and a closing of each.

Does not belong here: generated books of many accounts (account_years.py), lines that are told (ledgers.py).
"""

import secrets
from collections.abc import Callable, Mapping
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from pipelines.billing import agreements, books, closing, periods, redaction
from pipelines.billing import ledger as files
from pipelines.billing.prices import Price, Sheet, Source, decide, propose
from tests.billing.account_years import START, Years
from tests.billing.ledgers import MET

JANUARY, FEBRUARY, MARCH, APRIL = (date(2025, month, 1) for month in range(1, 5))
COMMITMENT: dict[str, Any] = {"billing_account_id": "a", "item": "rated_cost", "pricing": "none", "unit_price": None}


class Months(Years):
    """Account `a` from the start, a turn of a million output tokens on a day, and months that close."""

    def __init__(self, models: Mapping[str, str], folder: Path) -> None:
        super().__init__(models, folder, 0, 1)
        self.decided, self.key = 0, secrets.token_bytes(32)
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

    def close(self, month: date, accounts: list[str] | None = None, build: bool = True, **waived: str) -> None:
        """Both steps, five days after the month's end or the last transition; `build`: with a run before and after."""
        if build:
            self.build()
        book = periods.read(files.book_path(self.folder))
        as_of = max([periods.end_of(month) + timedelta(days=5), *(item.as_of for item in book.transitions)])
        given: dict[str, Any] = {
            "actor": "ada", "reason": "r", "as_of": as_of, "checks": [MET],
            "waived": {"grace": "told so", "arrivals": "told so", **waived}, "accounts": accounts,
        }  # fmt: skip
        if any(item.status == "open" for item in self.ready(month, accounts)):
            closing.close(self.connection, self.folder, month, **given, signed="")
        signed = closing.signature(item for item in self.ready(month, accounts) if item.status == "closing")
        closing.close(self.connection, self.folder, month, **given, signed=signed)
        if build:
            self.build()

    def erase(self, sessions: Mapping[str, set[str]]) -> None:
        """The turns of sessions and these words, out of the warehouse and of what was sealed."""
        gone = {turn["turn_id"] for turn in self.turns if turn["session_id"] in sessions}
        words = gone.union(sessions, *sessions.values())
        redaction.redact(self.folder / "exports", self.folder, words, at=periods.end_of(FEBRUARY), key=self.key)
        self.turns = [turn for turn in self.turns if turn["turn_id"] not in gone]
        self.connection.execute("delete from core.int_sessions__tree_resolved where session_id in ?", [list(sessions)])
        files.reload(self.connection, self.folder)
        self.build()

    def payable(self) -> dict[str, Decimal]:
        """What each invoice asks for."""
        query = "select invoice_id, sum(rounded_amount) from marts.fct_invoice_lines group by 1"
        return dict(self.connection.execute(query).fetchall())

    def owed(self) -> dict[str, Decimal]:
        """The invoices that ask for something, or give it back."""
        return {invoice: amount for invoice, amount in self.payable().items() if amount}
