"""The price book: sheets of prices, the decisions about them, and which of them counts when, as known when.

A sheet is every price of one offer (provider, model, service tier, batch or not) from one instant to another, as one
source states it. It becomes billable by a decision. Of approved sheets that are valid at an instant, the one decided
last counts; so a row once written is never changed, and what was believed on any day can be asked for later.
Does not belong here: reading other people's catalogs (catalogs.py), how rows are kept (books.py), rating (models/).
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any, Literal

from pipelines.billing import books
from pipelines.billing.books import Row, written
from pipelines.contract.numbers import pluralize
from pipelines.errors import UsageError

UNITS = {
    "input_uncached": "tokens", "cache_read": "tokens", "cache_write_5m": "tokens", "cache_write_1h": "tokens",
    "output": "tokens", "web_search": "requests", "tool_call": "requests", "session": "sessions",
    "worker_hour": "hours", "colony_day": "days", "seat_month": "seats",
}  # fmt: skip
QUANTITIES = {"tokens": 1_000_000, "requests": 1_000}
DAY = 86_400
OPERATOR = "operator"  # the source whose word no catalog replaces
WEEK = 127  # a bit for each weekday, Monday first
INPUT_RATE = "the source states no price of its own: billed as input"

Decision = Literal["approve", "corroborate", "reject"]
Offer = tuple[str, str, str, bool]  # provider, model, service tier, whether it is for batches


class PriceError(UsageError):
    """A sheet of prices or a decision that cannot stand; the text says why."""


@dataclass(frozen=True, kw_only=True)
class Price:
    """The price of `unit_quantity` units of a component, in the hours and from the input size it is for.

    `context_tier_min`: the least input tokens of a request that it holds for. `tod_from`, `tod_to`: seconds of the UTC
    day, half-open. `note`: INPUT_RATE marks a price that the source does not state itself.
    """

    component: str
    unit_price: Decimal
    context_tier_min: int = 0
    dow_mask: int = WEEK
    tod_from: int = 0
    tod_to: int = DAY
    is_free: bool = False
    note: str | None = None

    @property
    def slot(self) -> tuple[str, int, int, int, int]:
        """What it is the price of, within its sheet."""
        return (self.component, self.context_tier_min, self.dow_mask, self.tod_from, self.tod_to)


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where prices were read: its name, its version, and the hash of the bytes that were read."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """All prices of one offer in one span of time, as one source states them."""

    provider_name: str
    model: str
    prices: tuple[Price, ...]
    valid_from: datetime
    valid_to: datetime | None = None
    source: Source
    currency: str = "USD"
    service_tier: str = "standard"
    is_batch: bool = False

    def __post_init__(self) -> None:
        # In one order, so that the same prices are the same sheet whoever listed them.
        object.__setattr__(self, "prices", tuple(sorted(self.prices, key=lambda price: price.slot)))

    @property
    def offer(self) -> Offer:
        """What is replaced as a whole when a newer sheet is approved."""
        return (self.provider_name, self.model, self.service_tier, self.is_batch)

    @property
    def name(self) -> str:
        """How a person is told of it."""
        kind = "" if self.service_tier == "standard" else f", {self.service_tier}"
        return f"{self.provider_name}/{self.model}{kind}{', batch' if self.is_batch else ''}"

    @property
    def sheet_id(self) -> str:
        """Hash of all it says; the time it was read is no part of it, so that reading it again changes nothing."""
        return _hash([*self._head(), *sorted("|".join(map(written, _cells(price))) for price in self.prices)])

    def covers(self, instant: datetime) -> bool:
        """Whether it is valid at an instant: from valid_from on, up to but not at valid_to."""
        return self.valid_from <= instant and (self.valid_to is None or instant < self.valid_to)

    def overlaps(self, other: "Sheet") -> bool:
        """Whether there is an instant at which both are valid."""
        return (other.valid_to is None or self.valid_from < other.valid_to) and (
            self.valid_to is None or other.valid_from < self.valid_to
        )

    def rows(self, recorded_at: datetime) -> list[Row]:
        """Its rows in the price book."""
        head = {
            "sheet_id": self.sheet_id, "provider_name": self.provider_name, "model": self.model,
            "service_tier": self.service_tier, "is_batch": self.is_batch, "currency": self.currency,
            "valid_from": self.valid_from, "valid_to": self.valid_to, "recorded_at": recorded_at,
            "source": self.source.name, "source_version": self.source.version, "source_sha256": self.source.sha256,
        }  # fmt: skip
        return [
            {
                **head, "price_id": _hash([self.sheet_id, *map(str, price.slot)]), "component": price.component,
                "unit": UNITS[price.component], "unit_quantity": QUANTITIES.get(UNITS[price.component], 1),
                "unit_price": price.unit_price, "context_tier_min": price.context_tier_min, "dow_mask": price.dow_mask,
                "tod_from": price.tod_from, "tod_to": price.tod_to, "is_free": price.is_free, "note": price.note,
            }
            for price in self.prices
        ]  # fmt: skip

    def _head(self) -> list[str]:
        return [
            *map(written, self.offer), self.currency, written(self.valid_from), written(self.valid_to),
            self.source.name, self.source.version, self.source.sha256,
        ]  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """A sheet in the book: when it was recorded, and what was decided about it, in order of time."""

    sheet: Sheet
    recorded_at: datetime
    decisions: tuple[tuple[datetime, Decision, str, str], ...] = ()
    """When, what, by whom, why."""

    def last_decision(self, known_at: datetime) -> tuple[datetime, Decision, str, str] | None:
        """The last word on it as known at an instant."""
        return max((d for d in self.decisions if d[0] <= known_at), default=None)


def check(sheet: Sheet) -> None:
    """Refuse a sheet with a gap, an overlap or a zero that nobody called free. Raises PriceError."""
    if sheet.valid_to is not None and sheet.valid_from >= sheet.valid_to:
        raise PriceError(f"{sheet.name}: valid_to {written(sheet.valid_to)} is not after valid_from")
    if not sheet.prices:
        raise PriceError(f"{sheet.name}: a sheet without prices")
    slots: dict[tuple[str, int], list[Price]] = defaultdict(list)
    for price in sheet.prices:
        _check_price(sheet, price)
        slots[price.component, price.context_tier_min].append(price)
    for (component, tier), prices in slots.items():
        if (component, 0) not in slots:
            raise PriceError(f"{sheet.name}: {component} has a price from {pluralize(tier, 'token')} on and none below")
        for bit in (1 << number for number in range(7)):
            edge = 0
            for price in sorted((p for p in prices if p.dow_mask & bit), key=lambda p: p.tod_from):
                if price.tod_from != edge:
                    word = "two prices" if price.tod_from < edge else "no price"
                    raise PriceError(f"{sheet.name}: {component} has {word} at second {min(price.tod_from, edge)}")
                edge = price.tod_to
            if edge != DAY:
                raise PriceError(f"{sheet.name}: {component} has no price at second {edge} of a weekday")


def _check_price(sheet: Sheet, price: Price) -> None:
    if price.component not in UNITS:
        raise PriceError(f"{sheet.name}: {price.component} is no component; use one of {', '.join(UNITS)}")
    if price.unit_price < 0 or (price.unit_price == 0) != price.is_free:
        raise PriceError(f"{sheet.name}: {price.component} costs {price.unit_price}: free is said by is_free")
    if price.unit_price != round(price.unit_price, 9):
        raise PriceError(f"{sheet.name}: {price.component} costs {price.unit_price}: nine decimals at most")
    if not (0 < price.dow_mask <= WEEK and 0 <= price.tod_from < price.tod_to <= DAY):
        raise PriceError(f"{sheet.name}: {price.component} has hours that are none")


def entries(folders: Sequence[Path]) -> list[Entry]:
    """The whole book, in the order it was written. Raises BookError."""
    decisions = defaultdict(list)
    for row in books.read(books.DECISIONS, folders):
        decisions[row["sheet_id"]].append((row["decided_at"], row["decision"], row["decided_by"], row["reason"]))
    grouped: dict[str, list[Row]] = defaultdict(list)
    for row in books.read(books.PRICES, folders):
        grouped[row["sheet_id"]].append(row)
    return [
        Entry(sheet_of(rows), rows[0]["recorded_at"], tuple(sorted(decisions[sheet_id])))
        for sheet_id, rows in grouped.items()
    ]


def sheet_of(rows: Sequence[Row]) -> Sheet:
    """A sheet from its rows."""
    first = rows[0]
    return Sheet(
        provider_name=first["provider_name"], model=first["model"], service_tier=first["service_tier"],
        is_batch=first["is_batch"], currency=first["currency"], valid_from=first["valid_from"],
        valid_to=first["valid_to"],
        source=Source(name=first["source"], version=first["source_version"], sha256=first["source_sha256"]),
        prices=tuple(
            Price(
                component=row["component"], unit_price=row["unit_price"], context_tier_min=row["context_tier_min"],
                dow_mask=row["dow_mask"], tod_from=row["tod_from"], tod_to=row["tod_to"], is_free=row["is_free"],
                note=row["note"],
            )
            for row in rows
        ),
    )  # fmt: skip


def propose(folders: Sequence[Path], sheets: Iterable[Sheet], *, now: datetime) -> list[Sheet]:
    """Record sheets that say something new, in the last folder, and return them. Raises PriceError.

    A newer release of a catalog that repeats a price adds nothing: its approval would give old lines a new price id.
    """
    book = _by_offer(entries(folders))
    new = {sheet.sheet_id: sheet for sheet in sheets if not _is_said(sheet, book[sheet.offer], now)}
    for sheet in new.values():
        check(sheet)
    books.append(books.PRICES, folders[-1], [row for sheet in new.values() for row in sheet.rows(now)])
    return list(new.values())


def decide(
    folders: Sequence[Path], sheet_ids: Sequence[str], decision: Decision, *, by: str, reason: str, now: datetime
) -> list[Sheet]:
    """Record a decision about sheets, named by their ids or the beginnings of them. Raises PriceError.

    Two sheets that overlap cannot be approved at one instant: nobody could tell which was meant to replace the other.
    """
    if not by.strip() or not reason.strip():
        raise PriceError("a decision needs a name and a reason")
    book = entries(folders)
    chosen = _chosen(book, sheet_ids)
    if decision == "approve":
        approved = [entry for entry in book if any(d[:2] == (now, "approve") for d in entry.decisions)]
        for together in _by_offer([*approved, *chosen]).values():
            for one, other in combinations((entry.sheet for entry in together), 2):
                if one.overlaps(other):
                    raise PriceError(f"{one.name}: two sheets of one time cannot be approved at once")
    for entry in chosen:
        if entry.decisions and entry.decisions[-1][0] >= now:
            raise PriceError(f"{entry.sheet.name}: decided at {written(entry.decisions[-1][0])}, not before")
    rows = [
        {"sheet_id": entry.sheet.sheet_id, "decision": decision, "decided_by": by, "reason": reason, "decided_at": now}
        for entry in chosen
    ]
    books.append(books.DECISIONS, folders[-1], rows)
    return [entry.sheet for entry in chosen]


def named(folders: Sequence[Path], sheet_ids: Iterable[str]) -> list[Sheet]:
    """The sheets of these ids, or of these beginnings of ids. Raises PriceError, BookError."""
    return [entry.sheet for entry in _chosen(entries(folders), sheet_ids)]


def approved(book: Iterable[Entry], *, known_at: datetime) -> list[Entry]:
    """The sheets whose last decision is an approval, as known at an instant."""
    return [e for e in book if (last := e.last_decision(known_at)) is not None and last[1] == "approve"]


def in_force(book: Iterable[Entry], *, as_of: datetime, known_at: datetime) -> dict[Offer, Entry]:
    """The sheet of each offer that counts at an instant, as known at another."""
    found: dict[Offer, tuple[tuple[datetime, str], Entry]] = {}
    for entry in book:
        last = entry.last_decision(known_at)
        if last is None or last[1] != "approve" or entry.recorded_at > known_at or not entry.sheet.covers(as_of):
            continue
        rank = (last[0], entry.sheet.sheet_id)
        if entry.sheet.offer not in found or rank > found[entry.sheet.offer][0]:
            found[entry.sheet.offer] = (rank, entry)
    return {offer: entry for offer, (_, entry) in found.items()}


@dataclass(frozen=True)
class Difference:
    """A price on which two sheets of one offer differ: of which component, from which input size, in which hours."""

    sheet: Sheet
    other: Sheet
    component: str
    context_tier_min: int
    dow_mask: int
    tod_from: int
    tod_to: int
    price: Decimal
    other_price: Decimal


def differences(sheet: Sheet, other: Sheet) -> list[Difference]:
    """Where two sheets contradict each other, on the components that both state themselves.

    Compared is what they would charge: a sheet without a tier charges its base price there.
    """
    found = []
    for component in sorted(_stated(sheet) & _stated(other)):
        both = [price for price in (*sheet.prices, *other.prices) if price.component == component]
        marks = sorted({edge for price in both for edge in (price.tod_from, price.tod_to)})
        for tier in sorted({price.context_tier_min for price in both}):
            for begin, end in pairwise(marks):
                days: dict[tuple[Decimal, Decimal], int] = {}
                for bit in (1 << number for number in range(7)):
                    pair = tuple(_charged(one, component, tier, bit, begin) for one in (sheet, other))
                    days[pair[0], pair[1]] = days.get((pair[0], pair[1]), 0) | bit
                found += [
                    Difference(sheet, other, component, tier, mask, begin, end, left, right)
                    for (left, right), mask in days.items()
                    if left != right
                ]
    return found


def agree(sheet: Sheet, other: Sheet) -> bool:
    """Whether two sources charge exactly the same for input and output, and for whatever else both state.

    A context tier that only one of them has is no contradiction: a turn sums up several requests, so that nobody can
    prove a tier and the lowest one is charged; the others are what it may cost at most.
    """
    return (
        sheet.source.name != other.source.name
        and sheet.currency == other.currency
        and {"input_uncached", "output"} <= _stated(sheet) & _stated(other)
        and not any(found.context_tier_min == 0 for found in differences(sheet, other))
    )


def quorum(folders: Sequence[Path], *, as_of: datetime, now: datetime) -> tuple[list[Sheet], list[Difference]]:
    """Approve undecided sheets that another source agrees with exactly, and report where sources contradict.

    Only sheets that are valid at `as_of` are compared: a catalog without history speaks of the day it was taken. The
    sheet that states more is approved, the other one corroborates it. An offer whose sources contradict each other,
    or whose price an operator set, waits for a person. Raises PriceError.
    """
    book = entries(folders)
    current = in_force(book, as_of=as_of, known_at=now)
    against = [found for found in contradictions(book, as_of=as_of) if found.context_tier_min == 0]
    contested = {found.sheet.offer for found in against}
    approved: list[Sheet] = []
    words: dict[tuple[Decision, str], list[str]] = defaultdict(list)
    for offer, (first, *others) in _rivals(book, as_of).items():
        is_operators = offer in current and current[offer].sheet.source.name == OPERATOR
        seconds = [other.sheet for other in others if agree(first.sheet, other.sheet)]
        if first.decisions or offer in contested or not seconds or is_operators:
            continue
        reason = f"{' and '.join(sorted({first.sheet.source.name, *(s.source.name for s in seconds)}))} state the same"
        words["approve", reason].append(first.sheet.sheet_id)
        words["corroborate", reason] += [
            other.sheet.sheet_id for other in others if not other.decisions and other.sheet in seconds
        ]
        approved.append(first.sheet)
    for (decision, reason), sheet_ids in words.items():
        decide(folders, sheet_ids, decision, by="quorum", reason=reason, now=now)
    return approved, against


def contradictions(book: Iterable[Entry], *, as_of: datetime) -> list[Difference]:
    """Where the newest words of two sources on one offer would charge differently at an instant."""
    return [
        found
        for first, *others in _rivals(book, as_of).values()
        for other in others
        for found in differences(first.sheet, other.sheet)
    ]


def unopposed(folders: Sequence[Path], *, as_of: datetime) -> list[Sheet]:
    """Undecided sheets that no source contradicts and that take nothing from an approved one."""
    book = entries(folders)
    against = contradictions(book, as_of=as_of)
    contested = {difference.sheet.offer for difference in against if difference.context_tier_min == 0}
    found: list[Sheet] = []
    for offer, offered in _by_offer(book).items():
        if offer in contested:
            continue
        taken = [entry.sheet for entry in offered if entry.decisions and entry.decisions[-1][1] == "approve"]
        for entry in offered:
            if not entry.decisions and not any(entry.sheet.overlaps(other) for other in taken):
                found.append(entry.sheet)
                taken.append(entry.sheet)
    return found


def _rivals(book: Iterable[Entry], as_of: datetime) -> dict[Offer, list[Entry]]:
    """The newest word of each source on each offer at an instant, the fullest first."""
    newest: dict[Offer, dict[str, Entry]] = defaultdict(dict)
    for entry in book:
        if entry.sheet.covers(as_of):
            newest[entry.sheet.offer][entry.sheet.source.name] = entry
    return {
        offer: sorted(
            newest[offer].values(),
            key=lambda e: (-len(_stated(e.sheet)), -len(e.sheet.prices), e.sheet.source.name),
        )
        for offer in sorted(newest)
    }


def _stated(sheet: Sheet) -> set[str]:
    return {price.component for price in sheet.prices if price.note != INPUT_RATE}


def _charged(sheet: Sheet, component: str, tier: int, bit: int, second: int) -> Decimal:
    """What a request of `tier` input tokens is charged in one second of the week."""
    fitting = [
        (price.context_tier_min, price.unit_price)
        for price in sheet.prices
        if price.component == component
        and price.context_tier_min <= tier
        and price.dow_mask & bit
        and price.tod_from <= second < price.tod_to
    ]
    return max(fitting)[1]


def _by_offer(book: Iterable[Entry]) -> defaultdict[Offer, list[Entry]]:
    found: defaultdict[Offer, list[Entry]] = defaultdict(list)
    for entry in book:
        found[entry.sheet.offer].append(entry)
    return found


def _is_said(sheet: Sheet, book: Sequence[Entry], now: datetime) -> bool:
    """Whether its own source said it before, or it repeats the approved prices of its whole span.

    `book`: what it says of the same offer.
    """
    same = [entry.sheet for entry in book]
    if any(
        (sheet.source.name, sheet.valid_from, sheet.valid_to, sheet.currency, set(sheet.prices))
        == (old.source.name, old.valid_from, old.valid_to, old.currency, set(old.prices))
        for old in same
    ):
        return True
    edges = {sheet.valid_from, *(old.valid_from for old in same), *(old.valid_to for old in same if old.valid_to)}
    for edge in sorted(edge for edge in edges if sheet.covers(edge)):
        standing = in_force(book, as_of=edge, known_at=now).get(sheet.offer)
        if (
            standing is None
            or standing.sheet.currency != sheet.currency
            or _stated(sheet) - _stated(standing.sheet)
            or differences(sheet, standing.sheet)
        ):
            return False
    return True


def _chosen(book: Sequence[Entry], sheet_ids: Iterable[str]) -> list[Entry]:
    by_id = {entry.sheet.sheet_id: entry for entry in book}
    return [by_id.get(name) or _named(book, name) for name in sheet_ids]


def _named(book: Iterable[Entry], name: str) -> Entry:
    found = [entry for entry in book if entry.sheet.sheet_id.startswith(name)]
    if len(found) != 1 or not name:
        raise PriceError(
            f"{name!r} names {pluralize(len(found), 'sheet')}: give the whole id, as `apiary prices show` prints it"
        )
    return found[0]


def _cells(price: Price) -> tuple[Any, ...]:
    return (*price.slot, price.unit_price, price.is_free, price.note)


def _hash(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]
