"""Times of the source to instants: naive local times, UTC texts and epoch seconds.

A local time is resolved with the writer's UTC offset where the source's own epoch times tell it (`OffsetReading`), and
in the device's time zone otherwise. Does not belong here: choosing which time stands for a record (readers, models/),
finding the readings (readers/hive/offset_readings.py).
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache, lru_cache
from zoneinfo import ZoneInfo, available_timezones

from pipelines.contract.table import EARLIEST_WRITTEN, LATEST

_STAMP = re.compile(r"session_(\d{8})_(\d{6})_[0-9a-f]{8}|(\d{8})T(\d{6})_[0-9a-f]{8}", re.ASCII)
_LEAP_SECOND = re.compile(r":60(?:\.\d*)?(?=$|[Z+-])")
OFFSET_STEP = timedelta(minutes=15)  # every offset in use since 2000 is a multiple of it
MAX_OFFSET = timedelta(hours=14)
SLACK = timedelta(minutes=1)  # lines of several writers in one log are out of order by less
BLOCK_GAP = timedelta(minutes=30)  # nobody travels to another zone while lines are closer together
TRIP = timedelta(hours=3)  # a journey to another zone takes longer
LATE = timedelta(minutes=5)  # a log's file time may be this much older than its last line


@dataclass(frozen=True)
class Instant:
    """A moment in UTC with the worth of the claim: `basis` as in the contract's `time_basis`.

    `utc_offset_seconds`: of a local time, the offset it was resolved with, so that `at` plus the offset is the local
    time as written. `offset_basis`: as in the contract. None for a time that was written with its offset.
    """

    at: datetime
    basis: str
    is_ambiguous: bool = False
    utc_offset_seconds: int | None = None
    offset_basis: str | None = None


@dataclass(frozen=True)
class OffsetReading:
    """A local time beside the instant at which it was written: the writer's UTC offset at `at`.

    `run_id`: the run that it is about. `position`: the place in the log from which on it holds; None if not known.
    `is_doubtful`: something else contradicts it, so that times which rest on it are flagged.
    """

    at: datetime
    offset: timedelta
    basis: str
    run_id: str | None = None
    position: int | None = None
    is_doubtful: bool = False


def offset_reading(
    local: datetime, at: datetime, basis: str, *, early: timedelta, late: timedelta, run_id: str | None = None
) -> OffsetReading | None:
    """The offset that a naive local time and an instant tell together.

    `at` may lie before the instant of `local` by `early` and after it by `late`. None if no multiple of 15 minutes
    within 14 hours fits: then the two were not written together.
    """
    apart = local.replace(tzinfo=UTC) - at
    offset = OFFSET_STEP * round(apart / OFFSET_STEP)
    if abs(offset) > MAX_OFFSET or not -late <= apart - offset <= early:
        return None
    return OffsetReading(at, offset, basis, run_id)


Choice = tuple[Instant, OffsetReading | None]
"""An instant that a local time may mean, and the reading that says so."""


class Clock:
    """Resolves the times of one device in its zone."""

    def __init__(self, zone: str) -> None:
        self.zone = ZoneInfo(zone)

    def event_time(self, text: object) -> Instant | None:
        """An ISO time of an event: with an offset it is exact, without one it is local to the device.

        An hour that occurs twice is taken as its first pass and flagged; an hour that never occurs is moved on by the
        gap, as `zoneinfo` does. None if the text is no time.
        """
        return LogClock(self).event_time(text)

    def passes(self, local: datetime) -> tuple[datetime, ...]:
        """The instants of a local time in the zone: two of an hour that occurs twice, else one."""
        return _passes(local, self.zone)

    def agrees(self, reading: OffsetReading) -> bool:
        """Whether the offset of a reading is that of the zone."""
        return reading.at.astimezone(self.zone).utcoffset() == reading.offset


class LogClock:
    """Resolves the local times of one log, asked in the order of its lines.

    The lines of a log are in the order of their instants, and none is later than the file: of the instants that a
    local time may mean, this excludes some. A time that is left with more than one is flagged.
    """

    def __init__(
        self,
        clock: Clock,
        readings: Iterable[OffsetReading] = (),
        *,
        modified_at: datetime | None = None,
        is_contradicted: bool = False,
    ) -> None:
        """`is_contradicted`: a reading of another offset than the zone's was left out, for it was disproved."""
        self._is_contradicted = is_contradicted
        self._clock = clock
        self._readings = sorted(readings, key=lambda reading: reading.at)
        self._latest = modified_at + LATE if modified_at else None
        self._last: datetime | None = None
        self._floor: datetime | None = None
        self._position = -1
        self._near: OffsetReading | None = None  # the reading with which the last line hangs together

    def add(self, reading: OffsetReading) -> None:
        """A reading found in the log itself: it holds from the present line on."""
        self._readings.append(replace(reading, position=self._position))
        self._readings.sort(key=lambda reading: reading.at)

    def event_time(self, text: object, *, run_id: object = None, position: int | None = None) -> Instant | None:
        """The instant of an ISO time. `position`: of its line in the log. None if the text is no time."""
        if position is not None:
            self._position = position
        moment = _parsed(text)
        if moment is None:
            return None
        try:
            if moment.tzinfo is not None:
                return _bounded(Instant(moment.astimezone(UTC), "utc"))
            found = self._resolved(moment, run_id)
        except OverflowError:  # the first and the last day of the calendar overflow in another zone
            return None
        bounded = _bounded(found)
        if bounded is not None:
            self._last = bounded.at
        return bounded

    def _resolved(self, local: datetime, run_id: object) -> Instant:
        choices = self._choices(local, run_id)
        allowed = [choice for choice in choices if self._is_possible(choice[0].at)]
        possible = allowed or choices
        likely = {choice[1]: choice for choice in reversed(possible)}  # of each reading the first
        best, reading = min(likely.values(), key=self._wait)
        instants = {choice.at for choice, _ in possible}
        if reading is not None and reading.basis == "file_modified_at" and self._clock.agrees(reading):
            # Lines of the end that look close to each other may be of two passes.
            instants.update(at for at in self._clock.passes(local) if self._is_possible(at))
        # The earliest, not the best: a doubtful line that was dated too late must not exclude what comes after it.
        self._floor = min(instants)
        is_doubtful = best.is_ambiguous or not allowed or len(instants) > 1
        if reading is not None and not self._is_own(reading, run_id):
            is_doubtful |= self._is_apart(best.at, reading)
        if best.offset_basis == "device_zone" and best.at != choices[0][0].at:
            best = replace(best, offset_basis="line_order")  # the clock was put back between two lines
        return replace(best, is_ambiguous=is_doubtful)

    def _is_apart(self, at: datetime, reading: OffsetReading) -> bool:
        """Whether the device may have moved between a reading and an instant: the readings around it differ, and
        nothing happened for a while."""
        since = reading.at if self._near != reading or self._last is None else self._last
        is_near = -BLOCK_GAP <= at - since <= BLOCK_GAP
        self._near = reading if is_near else None
        if any((other.position or -1) > self._position and at > other.at + SLACK for other in self._readings):
            return True  # what stands further on in the log is earlier
        if at < reading.at:
            return not is_near and self._is_abroad()
        after = next((other for other in self._readings if other.at > reading.at), None)
        if after is None:
            return not self._clock.agrees(reading) and at - since > TRIP
        if self._clock.agrees(reading) and self._clock.agrees(after):
            return False
        return after.offset != reading.offset and (not is_near or at > after.at + SLACK)

    def _wait(self, choice: Choice) -> tuple[timedelta, datetime]:
        """How long nothing happened before an instant: the line before it, or the reading by which it was made."""
        instant, reading = choice
        read_at = reading.at if reading is not None else None
        known = [at for at in (self._last, read_at) if at is not None and at <= instant.at + SLACK]
        return instant.at - max(known, default=instant.at), instant.at

    def _is_possible(self, at: datetime) -> bool:
        return (self._floor is None or at >= self._floor - SLACK) and self._is_before_end(at)

    def _is_before_end(self, at: datetime) -> bool:
        return self._latest is None or at <= self._latest

    def _choices(self, local: datetime, run_id: object) -> list[Choice]:
        """The instants that a local time may mean by the readings that may hold for it."""
        readings = [r for r in self._readings if r.position is None or r.position <= self._position]
        if not readings:
            # What is read further on in the log may tell that the device was elsewhere.
            found = [_instant(local, at, "device_zone") for at in self._clock.passes(local)]
            return [(replace(instant, is_ambiguous=self._is_abroad()), None) for instant in found]
        own = [reading for reading in readings if self._is_own(reading, run_id)]
        if own:
            return self._by_reading(local, own[0])
        valid: list[Choice] = []
        placed: list[Choice] = []
        nearest: list[tuple[timedelta, Choice]] = []
        for reading in readings:
            # A reading holds until the next one, whether or not that one's place in the log is reached yet.
            end = next((other.at for other in self._readings if other.at > reading.at), None)
            for choice in self._by_reading(local, reading):
                at = choice[0].at
                before = reading.at - at
                beyond = at - end if end is not None else timedelta()
                if before <= SLACK and (end is None or beyond < SLACK):
                    valid.append(choice)
                    if reading.position is not None and self._is_possible(at):
                        placed.append(choice)
                nearest.append((max(before, beyond, timedelta()), choice))
        return placed or valid or [min(nearest, key=lambda found: found[0])[1]]

    def _by_reading(self, local: datetime, reading: OffsetReading) -> list[Choice]:
        """A reading that agrees with the device's zone says that the zone holds, through changes of its offset too.

        Any other means some place with that offset; where the clocks of such places changed since, it means several
        instants.
        """
        agrees = self._clock.agrees(reading)
        passes = self._clock.passes(local) if agrees else _passes_abroad(local, reading)
        found = [_instant(local, at, reading.basis) for at in passes]
        # The time of a file is one coincidence, and copying changes it.
        is_weak = (reading.basis == "file_modified_at" or reading.is_doubtful) and not agrees
        return [(replace(instant, is_ambiguous=is_weak), reading) for instant in found]

    def _is_abroad(self) -> bool:
        """Whether anything tells that the device was elsewhere in this session."""
        return self._is_contradicted or not all(self._clock.agrees(reading) for reading in self._readings)

    @staticmethod
    def _is_own(reading: OffsetReading, run_id: object) -> bool:
        return run_id is not None and reading.run_id == run_id


def _passes(local: datetime, zone: ZoneInfo) -> tuple[datetime, ...]:
    aware = local.replace(tzinfo=zone)
    first, second = aware.replace(fold=0).astimezone(UTC), aware.replace(fold=1).astimezone(UTC)
    return (first, second) if first < second else (first,)


def _passes_abroad(local: datetime, reading: OffsetReading) -> tuple[datetime, ...]:
    """The instants of a local time in the places with a reading's offset at its time, those of most places first."""
    at = (local - reading.offset).replace(tzinfo=UTC)
    places = _places(_quarter(reading.at), reading.offset)
    return tuple(at + shift for shift in _shifts(places, reading.offset, _quarter(at)))


def _quarter(at: datetime) -> datetime:
    """The beginning of its quarter of an hour: clocks change at no other times."""
    return at - (at - datetime.min.replace(tzinfo=UTC)) % OFFSET_STEP


@lru_cache(maxsize=10_000)
def _shifts(places: tuple[ZoneInfo, ...], offset: timedelta, quarter: datetime) -> tuple[timedelta, ...]:
    """By how much later than with an unchanged offset a local time may be, that of most places first."""
    local = (quarter + offset).replace(tzinfo=None)
    shifts = Counter(at - quarter for zone in places for at in _passes(local, zone))
    return tuple(sorted(shifts, key=lambda shift: (-shifts[shift], shift))) or (timedelta(),)


@lru_cache(maxsize=1_000)
def _places(at: datetime, offset: timedelta) -> tuple[ZoneInfo, ...]:
    return tuple(zone for zone in _zones() if at.astimezone(zone).utcoffset() == offset)


@cache
def _zones() -> tuple[ZoneInfo, ...]:
    """Every zone, kept: `zoneinfo` itself keeps eight, and reading them all takes half a second."""
    return tuple(ZoneInfo(name) for name in sorted(available_timezones()))


def local_stamp(session_id: str) -> str | None:
    """The local time of a generated session id, as an event of that second would write it (for comparing texts)."""
    match = _STAMP.fullmatch(session_id)
    if match is None:
        return None
    day, time = match[1] or match[3], match[2] or match[4]
    return f"{day[:4]}-{day[4:6]}-{day[6:]}T{time[:2]}:{time[2:4]}:{time[4:]}"


def local_time(text: object) -> datetime | None:
    """A time that was written without an offset, as it was written; None for any other."""
    moment = _parsed(text)
    return moment if moment is not None and moment.tzinfo is None else None


def utc_time(text: object) -> datetime | None:
    """A UTC time as SQLite or Python writes it: `2026-05-04 19:00:00`, `2026-05-04T19:00:00+00:00`."""
    moment = _parsed(text)
    if moment is None:
        return None
    try:
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:
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


def _parsed(text: object) -> datetime | None:
    """An ISO time. A leap second, which `datetime` cannot hold, is the last microsecond of its minute."""
    if not isinstance(text, str):
        return None
    try:
        return datetime.fromisoformat(_LEAP_SECOND.sub(":59.999999", text) if ":60" in text else text)
    except ValueError:
        return None


def _instant(local: datetime, at: datetime, basis: str) -> Instant:
    offset = local.replace(tzinfo=UTC) - at
    return Instant(at, "local_resolved", utc_offset_seconds=int(offset.total_seconds()), offset_basis=basis)


def _bounded(instant: Instant) -> Instant | None:
    return instant if EARLIEST_WRITTEN <= instant.at < LATEST else None
