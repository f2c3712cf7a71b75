"""Prices without sense: far from the last price, from what other catalogs say, or from everything in the book.

Does not belong here: whether a sheet is whole (prices.py).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path

from pipelines.billing import prices
from pipelines.billing.prices import Entry, PriceError, Sheet
from pipelines.contract.numbers import plain

FACTOR = 10  # up to so many times dearer or cheaper is a price change; more is a unit that was mistaken


@dataclass(frozen=True)
class Doubt:
    """A price and what it is far from: the price of the same component there, and how many times it is that."""

    sheet: Sheet
    component: str
    price: Decimal
    compared_with: str
    other_price: Decimal

    @property
    def ratio(self) -> Decimal:
        """How many times the other price it is."""
        return (self.price / self.other_price).quantize(Decimal("0.001"))

    def __str__(self) -> str:
        """How a person is told of it."""
        return (
            f"{self.sheet.name}: {self.component} costs {plain(self.price)} {self.sheet.currency} per million,"
            f" {plain(self.ratio)} times {self.compared_with} ({plain(self.other_price)})"
        )


def doubts(folders: Sequence[Path], sheets: Iterable[Sheet], *, now: datetime) -> list[Doubt]:
    """What is far from what is known already; nothing of a free price. Raises BookError."""
    book = prices.entries(folders)
    dearest: dict[tuple[str, str], tuple[Decimal, str]] = {}
    for entry in prices.approved(book, known_at=now):
        for component, price in _base(entry.sheet).items():
            key = (entry.sheet.currency, component)
            dearest[key] = max(dearest.get(key, (Decimal(0), "")), (price, entry.sheet.name))
    return [found for sheet in sheets for found in _doubts(sheet, book, dearest, now)]


def approve(
    folders: Sequence[Path], sheet_ids: Sequence[str], *, by: str, reason: str, now: datetime, is_accepted: bool
) -> list[Sheet]:
    """Approve sheets; those in doubt only if that is accepted. Raises PriceError, BookError."""
    chosen = prices.named(folders, sheet_ids)
    found = doubts(folders, chosen, now=now)
    if found and not is_accepted:
        lines = "\n".join(f"  {doubt}" for doubt in found)
        raise PriceError(f"prices that look mistaken:\n{lines}\nif they are right, add --accept-implausible")
    return prices.decide(folders, sheet_ids, "approve", by=by, reason=reason, now=now)


def _doubts(
    sheet: Sheet, book: Sequence[Entry], dearest: dict[tuple[str, str], tuple[Decimal, str]], now: datetime
) -> list[Doubt]:
    same = [e for e in book if e.sheet.offer == sheet.offer and e.sheet.currency == sheet.currency]
    same = [e for e in same if e.sheet.sheet_id != sheet.sheet_id]
    before = [e for e in prices.approved(same, known_at=now) if e.sheet.valid_from <= sheet.valid_from]
    last = max(before, key=lambda e: (e.sheet.valid_from, e.last_decision(now)), default=None)
    rivals = {e.sheet.source.name: e for e in same if e.sheet.source.name != sheet.source.name}
    others = [
        *([("its last price", last.sheet)] if last else []),
        *((f"the price of {name}", entry.sheet) for name, entry in sorted(rivals.items())),
    ]
    found = []
    for component, price in _base(sheet).items():
        compared = [(words, _base(other)[component]) for words, other in others if component in _base(other)]
        top, name = dearest.get((sheet.currency, component), (Decimal(0), ""))
        if top and price > top * FACTOR:
            compared.append((f"the dearest price of the book, {name}", top))
        found += [
            Doubt(sheet, component, price, words, other)
            for words, other in compared
            if price and other and not other / FACTOR <= price <= other * FACTOR
        ]
    return found


def _base(sheet: Sheet) -> dict[str, Decimal]:
    """The dearest price of each component below every context threshold, per million or thousand units."""
    found: dict[str, Decimal] = {}
    for price in sheet.prices:
        if price.context_tier_min == 0:
            found[price.component] = max(found.get(price.component, Decimal(0)), price.unit_price)
    return found
