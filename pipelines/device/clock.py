"""Times of the source to instants: naive local times, UTC texts and epoch seconds.

Does not belong here: choosing which time stands for a record (readers, models/).
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from pipelines.contract.table import EARLIEST_WRITTEN, LATEST

_STAMP = re.compile(r"session_(\d{8})_(\d{6})_[0-9a-f]{8}|(\d{8})T(\d{6})_[0-9a-f]{8}", re.ASCII)


@dataclass(frozen=True)
class Instant:
    """A moment in UTC with the worth of the claim: `basis` as in the contract's `time_basis`."""

    at: datetime
    basis: str
    is_ambiguous: bool = False


class Clock:
    """Resolves the times of one device in its zone."""

    def __init__(self, zone: str) -> None:
        self.zone = ZoneInfo(zone)

    def event_time(self, text: object) -> Instant | None:
        """An ISO time of an event: with an offset it is exact, without one it is local to the device.

        An hour that occurs twice is taken as its first pass and flagged; an hour that never occurs is moved on by the
        gap, as `zoneinfo` does. None if the text is no time.
        """
        if not isinstance(text, str):
            return None
        try:
            moment = datetime.fromisoformat(text)
            if moment.tzinfo is not None:
                return _bounded(moment.astimezone(UTC), "utc")
            local = moment.replace(tzinfo=self.zone)
            first, second = local.replace(fold=0).astimezone(UTC), local.replace(fold=1).astimezone(UTC)
        except (ValueError, OverflowError):  # the first and the last day of the calendar overflow in another zone
            return None
        return _bounded(first, "local_resolved", is_ambiguous=first < second)

    def session_start(self, session_id: str) -> Instant | None:
        """The local time that a generated session id begins with."""
        match = _STAMP.fullmatch(session_id)
        if match is None:
            return None
        day, time = match[1] or match[3], match[2] or match[4]
        found = self.event_time(f"{day}T{time}")
        return Instant(found.at, "session_id", is_ambiguous=found.is_ambiguous) if found else None


def local_stamp(session_id: str) -> str | None:
    """The local time of a generated session id, as an event of that second would write it (for comparing texts)."""
    match = _STAMP.fullmatch(session_id)
    if match is None:
        return None
    day, time = match[1] or match[3], match[2] or match[4]
    return f"{day[:4]}-{day[4:6]}-{day[6:]}T{time[:2]}:{time[2:4]}:{time[4:]}"


def utc_time(text: object) -> datetime | None:
    """A UTC time as SQLite or Python writes it: `2026-05-04 19:00:00`, `2026-05-04T19:00:00+00:00`."""
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(text)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return moment if EARLIEST_WRITTEN <= moment < LATEST else None


def epoch_time(value: object) -> datetime | None:
    """Seconds since 1970, as `time.time()` writes them."""
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        return None
    # Before any arithmetic: a number with a million digits takes half a minute to become an integer.
    if not EARLIEST_WRITTEN.timestamp() <= value < LATEST.timestamp():
        return None
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(Decimal(value) * 1_000_000))


def _bounded(at: datetime, basis: str, *, is_ambiguous: bool = False) -> Instant | None:
    return Instant(at, basis, is_ambiguous) if EARLIEST_WRITTEN <= at < LATEST else None
