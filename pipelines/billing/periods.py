"""The book of billing periods: which month of which account is open, closing or closed, who said so, when and why.

One line of JSON per transition, each holding the hash of the line before, in a file of its own: a warehouse that is
rebuilt finds its closed months again. Every decision takes `as_of`; nothing here reads a clock.
Does not belong here: what is billed in a period (models/), the sealed lines (seals.py), files (statements.py).
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pipelines.errors import ExpectedError, UsageError
from pipelines.home import replace_file

Status = Literal["open", "closing", "closed"]
GRACE = timedelta(hours=72)  # the one setting of grace: a second one elsewhere would bill late usage twice, or never
ALLOWED: dict[Status, Status] = {"open": "closing", "closing": "closed", "closed": "open"}
FIRST_HASH = "0" * 64


class PeriodError(UsageError):
    """A transition that the rules do not allow, or one without a name or a reason."""


class NotReadyError(ExpectedError):
    """A period cannot be closed yet; the text names every condition that is not met."""


class BookError(ExpectedError):
    """The book was changed by other hands: a line does not continue the one before."""


@dataclass(frozen=True)
class Condition:
    """One condition of closing: whether it is met, what was found, and the command that settles it."""

    name: str
    is_met: bool
    found: str
    can_be_waived: bool = False
    settled_by: str = ""


@dataclass(frozen=True)
class Transition:
    """One line of the book. `period` is the month's first day; `seal` names the lines that were frozen.

    `accounts`: whose month it is; None, as in books of earlier versions, means all of them.
    """

    period: date
    before: Status
    after: Status
    actor: str
    reason: str
    as_of: datetime
    watermark_at: datetime | None = None
    grace_until: datetime | None = None
    requested_by: str | None = None
    waived: Mapping[str, str] = field(default_factory=dict)
    totals_sha256: str | None = None
    seal: str | None = None
    accounts: tuple[str, ...] | None = None

    def is_of(self, account: str | None) -> bool:
        """Whether it is about an account. `None` asks for what is said of all."""
        return self.accounts is None or account in self._names

    @cached_property
    def _names(self) -> frozenset[str]:
        """A line may name thousands of accounts, and is asked for each of them."""
        return frozenset(self.accounts or ())


@dataclass(frozen=True)
class Book:
    """All transitions in their order, and the hash of the last line. Each account has months of its own.

    Where a method takes an `account`, None asks for the accounts that no line names.
    """

    transitions: tuple[Transition, ...] = ()
    head: str = FIRST_HASH
    hashes: tuple[str, ...] = ()  # of each line

    def head_after(self, lines: int) -> str:
        """The hash of the last of the first `lines` lines."""
        return self.hashes[lines - 1] if lines else FIRST_HASH

    @property
    def accounts(self) -> frozenset[str]:
        """The accounts that some line names."""
        return frozenset(name for item in self.transitions for name in item.accounts or ())

    def of(self, account: str | None) -> list[Transition]:
        """The transitions of an account."""
        return [item for item in self.transitions if item.is_of(account)]

    def last(self, period: date, account: str | None = None) -> Transition | None:
        """The last transition of an account's period."""
        return next((item for item in reversed(self.of(account)) if item.period == period), None)

    def closed_through(self, account: str | None = None) -> date | None:
        """The latest month that was ever closed. Earlier ones are frozen with it, also those without any usage."""
        return max((item.period for item in self.of(account) if item.after == "closed"), default=None)

    def status(self, period: date, account: str | None = None) -> Status:
        """The state of an account's month."""
        last = self.last(period, account)
        if last is not None:
            return last.after
        frozen = self.closed_through(account)
        return "closed" if frozen is not None and period < frozen else "open"

    def oldest_open(self, account: str | None = None) -> date | None:
        """Where corrections go: the oldest month that was reopened, else the one after the last closed."""
        frozen = self.closed_through(account)
        if frozen is None:
            return None
        reopened = [item.period for item in self.of(account) if self.status(item.period, account) != "closed"]
        return min([*reopened, after(frozen)])

    @property
    def seals(self) -> tuple[tuple[date, str], ...]:
        """The sealed files in the order in which they were frozen, each with its period."""
        return tuple((item.period, item.seal) for item in self.transitions if item.seal)

    def seals_of(self, period: date, account: str | None = None) -> list[str]:
        """The sealed files that hold lines of an account's period."""
        return [item.seal for item in self.of(account) if item.period == period and item.seal]


def month_of(text: str) -> date:
    """The first day of a month written `2026-10`. Raises PeriodError."""
    try:
        return date.fromisoformat(f"{text}-01")
    except ValueError:
        raise PeriodError(f"{text!r} is no billing period: write YYYY-MM") from None


def after(period: date) -> date:
    """The first day of the next month."""
    return (period + timedelta(days=31)).replace(day=1)


def end_of(period: date) -> datetime:
    """The instant at which a period ends; it belongs to the next one."""
    return datetime.combine(after(period), datetime.min.time(), UTC)


def not_ended(period: date, *, as_of: datetime) -> str | None:
    """When a month that is not over can be closed; None once it is."""
    end = end_of(period)
    return f"the month ends at {end:%Y-%m-%d %H:%M} UTC: type this again after that" if as_of < end else None


def require_ended(period: date, *, as_of: datetime) -> None:
    """Raises PeriodError while a month is not over."""
    if early := not_ended(period, as_of=as_of):
        raise PeriodError(early)


def read(path: Path) -> Book:
    """The book. Raises BookError if a line does not continue the one before."""
    if not path.exists():
        return Book()
    transitions: list[Transition] = []
    hashes: list[str] = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            content = json.loads(line)
            is_next = content.pop("previous") == (hashes[-1] if hashes else FIRST_HASH)
            transition = _parsed(content)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise BookError(f"{path} was changed: line {number} is no transition; restore the file") from None
        if not is_next:
            raise BookError(f"{path} was changed: line {number} does not continue the one before; restore the file")
        transitions.append(transition)
        hashes.append(hashlib.sha256(line).hexdigest())
    return Book(tuple(transitions), hashes[-1] if hashes else FIRST_HASH, tuple(hashes))


def write(path: Path, transition: Transition) -> Book:
    """Add one line. Raises PeriodError for a transition that is not allowed, BookError for a changed book."""
    book = read(path)
    _check(book, transition)
    line = json.dumps({**_plain(transition), "previous": book.head}, sort_keys=True).encode()
    replace_file(path, (path.read_bytes() if path.exists() else b"") + line + b"\n")
    return read(path)


def start_closing(
    book: Book, period: date, *, actor: str, reason: str, as_of: datetime, watermark_at: datetime,
    accounts: Sequence[str] | None = None,
) -> Transition:  # fmt: skip
    """open → closing: the month has ended. Late usage is waited for, from what was known when it ended or later.

    A fleet that is idle since before the month's end does not hold it back: grace then counts from the end.
    Raises PeriodError.
    """
    transition = Transition(
        period, "open", "closing", actor, reason, as_of, watermark_at=watermark_at,
        grace_until=max(watermark_at, end_of(period)) + GRACE, accounts=_named(accounts),
    )  # fmt: skip
    _check(book, transition)
    require_ended(period, as_of=as_of)
    for account in transition.accounts or (None,):
        frozen = book.closed_through(account)
        if frozen is not None and period > after(frozen):
            raise PeriodError(
                f"months close in their order: {after(frozen):%Y-%m} comes before {period:%Y-%m}"
                + (f" for account {account}" if account else "")
            )
    return transition


def close(
    book: Book, period: date, *, actor: str, reason: str, as_of: datetime, conditions: Sequence[Condition],
    waived: Mapping[str, str], totals_sha256: str, seal: str, accounts: Sequence[str] | None = None,
) -> Transition:  # fmt: skip
    """closing → closed. Raises NotReadyError with every condition that is neither met nor waived, PeriodError."""
    named = _named(accounts)
    last = book.last(period, named[0] if named else None)
    transition = Transition(
        period, "closing", "closed", actor, reason, as_of,
        watermark_at=last.watermark_at if last else None, grace_until=last.grace_until if last else None,
        waived=dict(sorted(waived.items())), totals_sha256=totals_sha256, seal=seal, accounts=named,
    )  # fmt: skip
    _check(book, transition)
    if unmet := unmet_conditions(conditions, waived):
        raise NotReadyError(f"{period:%Y-%m} cannot be closed: " + "; ".join(f"{c.name}: {c.found}" for c in unmet))
    return transition


def reopen(
    book: Book, period: date, *, actor: str, reason: str, as_of: datetime, requested_by: str,
    accounts: Sequence[str] | None = None,
) -> Transition:  # fmt: skip
    """closed → open, on somebody's request. What was frozen stays frozen: only corrections can be added.

    Raises PeriodError.
    """
    if not requested_by.strip():
        raise PeriodError("a closed period is reopened on request only: name who asked with --requested-by")
    transition = Transition(
        period, "closed", "open", actor, reason, as_of, requested_by=requested_by, accounts=_named(accounts)
    )
    _check(book, transition)
    return transition


def unmet_conditions(conditions: Iterable[Condition], waived: Mapping[str, str]) -> list[Condition]:
    """The conditions that stand in the way. A waiver counts where one is possible, and with a reason only."""
    return [c for c in conditions if not c.is_met and not (c.can_be_waived and waived.get(c.name, "").strip())]


def grace_over(transition: Transition, *, as_of: datetime, watermark_at: datetime) -> Condition:
    """Whether late usage had its time: by the clock that was named, and by what the fleet has sent since."""
    until = transition.grace_until
    is_met = until is not None and min(as_of, watermark_at) >= until
    found = f"waits until {until:%Y-%m-%d %H:%M}, usage is known up to {watermark_at:%Y-%m-%d %H:%M}" if until else "-"
    idle = "a later run, or --waive 'grace=the fleet is idle'"
    return Condition("grace", is_met, found, can_be_waived=True, settled_by=idle)


def _check(book: Book, transition: Transition) -> None:
    name = f"{transition.period:%Y-%m}"
    if transition.period.day != 1:
        raise PeriodError(f"{transition.period} is no first day of a month")
    if not transition.actor.strip() or not transition.reason.strip():
        raise PeriodError(f"{name}: a transition needs a name and a reason: --actor, --reason")
    if transition.as_of.tzinfo is None:
        raise PeriodError(f"{name}: --as-of needs a zone: write 2026-11-04T09:00:00Z")
    if transition.accounts == ():
        raise PeriodError(f"{name}: a transition without accounts is of nobody's month")
    # A line for all accounts must be true of each: also of those that have lines of their own.
    for account in (None, *sorted(book.accounts)) if transition.accounts is None else transition.accounts:
        status = book.status(transition.period, account)
        if transition.before != status or ALLOWED[status] != transition.after:
            whose = f" for account {account}" if account else ""
            raise PeriodError(f"{name} is {status}{whose}: it cannot become {transition.after}")
    latest = max((item.as_of for item in book.transitions), default=transition.as_of)
    if transition.as_of < latest:
        raise PeriodError(f"{name}: the book is already at {latest.isoformat()}; --as-of cannot go back")


def _named(accounts: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if accounts is None else tuple(sorted(accounts))


def _plain(transition: Transition) -> dict[str, Any]:
    def text(value: Any) -> Any:
        if isinstance(value, datetime):
            return value.astimezone(UTC).isoformat()
        if isinstance(value, tuple):
            return list(value)
        return value.isoformat() if isinstance(value, date) else value

    return {name: text(value) for name, value in asdict(transition).items()}


def _parsed(content: Mapping[str, Any]) -> Transition:
    values = {"accounts": None} | dict(content)  # books of earlier versions name none
    values["accounts"] = _named(values["accounts"])
    values["period"] = date.fromisoformat(values["period"])
    for name in ("as_of", "watermark_at", "grace_until"):
        values[name] = datetime.fromisoformat(values[name]) if values[name] else None
    return Transition(**values)
