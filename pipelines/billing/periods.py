"""The book of billing periods: which month is open, closing or closed, who said so, when and why.

One line of JSON per transition, each holding the hash of the line before, in a file of its own: a warehouse that is
rebuilt finds its closed months again. Every decision takes `as_of`; nothing here reads a clock.
Does not belong here: what is billed in a period (models/), the sealed lines (seals.py), files (statements.py).
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
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
    """One condition of closing: whether it is met, and what was found."""

    name: str
    is_met: bool
    found: str
    can_be_waived: bool = False


@dataclass(frozen=True)
class Transition:
    """One line of the book. `period` is the month's first day; `seal` names the lines that were frozen."""

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


@dataclass(frozen=True)
class Book:
    """All transitions in their order, and the hash of the last line."""

    transitions: tuple[Transition, ...] = ()
    head: str = FIRST_HASH

    def last(self, period: date) -> Transition | None:
        """The last transition of a period."""
        return next((item for item in reversed(self.transitions) if item.period == period), None)

    @property
    def closed_through(self) -> date | None:
        """The latest month that was ever closed. Earlier ones are frozen with it, also those without any usage."""
        return max((item.period for item in self.transitions if item.after == "closed"), default=None)

    def status(self, period: date) -> Status:
        """The state of a month."""
        last = self.last(period)
        if last is not None:
            return last.after
        return "closed" if self.closed_through is not None and period < self.closed_through else "open"

    @property
    def oldest_open(self) -> date | None:
        """Where corrections go: the oldest month that was reopened, else the one after the last closed."""
        if self.closed_through is None:
            return None
        reopened = [item.period for item in self.transitions if self.status(item.period) != "closed"]
        return min([*reopened, after(self.closed_through)])

    @property
    def seals(self) -> tuple[tuple[date, str], ...]:
        """The sealed files in the order in which they were frozen, each with its period."""
        return tuple((item.period, item.seal) for item in self.transitions if item.seal)


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


def read(path: Path) -> Book:
    """The book. Raises BookError if a line does not continue the one before."""
    if not path.exists():
        return Book()
    transitions, head = [], FIRST_HASH
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        content = json.loads(line)
        if content.pop("previous") != head:
            raise BookError(f"{path} was changed: line {number} does not continue the one before; restore the file")
        transitions.append(_parsed(content))
        head = hashlib.sha256(line).hexdigest()
    return Book(tuple(transitions), head)


def write(path: Path, transition: Transition) -> Book:
    """Add one line. Raises PeriodError for a transition that is not allowed, BookError for a changed book."""
    book = read(path)
    _check(book, transition)
    line = json.dumps({**_plain(transition), "previous": book.head}, sort_keys=True).encode()
    replace_file(path, (path.read_bytes() if path.exists() else b"") + line + b"\n")
    return Book((*book.transitions, transition), hashlib.sha256(line).hexdigest())


def start_closing(
    book: Book, period: date, *, actor: str, reason: str, as_of: datetime, watermark_at: datetime
) -> Transition:
    """open → closing: the month has ended and everything seen so far is dated. Grace counts from the watermark.

    Raises PeriodError.
    """
    transition = Transition(
        period, book.status(period), "closing", actor, reason, as_of, watermark_at=watermark_at,
        grace_until=watermark_at + GRACE,
    )  # fmt: skip
    _check(book, transition)
    if min(as_of, watermark_at) < end_of(period):
        raise PeriodError(f"{period:%Y-%m} has not ended: usage is known up to {watermark_at:%Y-%m-%d %H:%M} UTC only")
    frozen = book.closed_through
    if frozen is not None and period > after(frozen):
        raise PeriodError(f"months close in their order: {after(frozen):%Y-%m} comes before {period:%Y-%m}")
    return transition


def close(
    book: Book, period: date, *, actor: str, reason: str, as_of: datetime, conditions: Sequence[Condition],
    waived: Mapping[str, str], totals_sha256: str, seal: str,
) -> Transition:  # fmt: skip
    """closing → closed. Raises NotReadyError with every condition that is neither met nor waived, PeriodError."""
    last = book.last(period)
    transition = Transition(
        period, book.status(period), "closed", actor, reason, as_of,
        watermark_at=last.watermark_at if last else None, grace_until=last.grace_until if last else None,
        waived=dict(sorted(waived.items())), totals_sha256=totals_sha256, seal=seal,
    )  # fmt: skip
    _check(book, transition)
    if unmet := unmet_conditions(conditions, waived):
        raise NotReadyError(f"{period:%Y-%m} cannot be closed: " + "; ".join(f"{c.name}: {c.found}" for c in unmet))
    return transition


def reopen(book: Book, period: date, *, actor: str, reason: str, as_of: datetime, requested_by: str) -> Transition:
    """closed → open, on somebody's request. What was frozen stays frozen: only corrections can be added.

    Raises PeriodError.
    """
    if not requested_by.strip():
        raise PeriodError("a closed period is reopened on request only: name who asked with --requested-by")
    transition = Transition(period, book.status(period), "open", actor, reason, as_of, requested_by=requested_by)
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
    return Condition("grace", is_met, found, can_be_waived=True)


def _check(book: Book, transition: Transition) -> None:
    name = f"{transition.period:%Y-%m}"
    if transition.period.day != 1:
        raise PeriodError(f"{transition.period} is no first day of a month")
    if not transition.actor.strip() or not transition.reason.strip():
        raise PeriodError(f"{name}: a transition needs a name and a reason: --actor, --reason")
    if transition.as_of.tzinfo is None:
        raise PeriodError(f"{name}: --as-of needs a zone: write 2026-11-04T09:00:00Z")
    status = book.status(transition.period)
    if transition.before != status or ALLOWED[status] != transition.after:
        raise PeriodError(f"{name} is {status}: it cannot become {transition.after}")
    latest = max((item.as_of for item in book.transitions), default=transition.as_of)
    if transition.as_of < latest:
        raise PeriodError(f"{name}: the book is already at {latest.isoformat()}; --as-of cannot go back")


def _plain(transition: Transition) -> dict[str, Any]:
    def text(value: Any) -> Any:
        if isinstance(value, datetime):
            return value.astimezone(UTC).isoformat()
        return value.isoformat() if isinstance(value, date) else value

    return {name: text(value) for name, value in asdict(transition).items()}


def _parsed(content: Mapping[str, Any]) -> Transition:
    values = dict(content)
    values["period"] = date.fromisoformat(values["period"])
    for name in ("as_of", "watermark_at", "grace_until"):
        values[name] = datetime.fromisoformat(values[name]) if values[name] else None
    return Transition(**values)
