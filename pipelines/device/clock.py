"""Times of the source to instants: naive local times, UTC texts and epoch seconds.

A local time is resolved with the writer's UTC offset where the source's own epoch times tell it (`OffsetReading`), and
in the device's time zone otherwise. Does not belong here: choosing which time stands for a record (readers, models/),
finding the readings (readers/hive/offset_readings.py).
"""

import math
import re
from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache, lru_cache
from operator import itemgetter
from typing import NamedTuple
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


class _Places(NamedTuple):
    """Where local times that a reading tells of were written: in the device's zone (None), or in any of several zones
    that had an offset at one time."""

    zones: tuple[ZoneInfo, ...] | None
    offset: timedelta


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
        return _offset_at(reading.at, self.zone) == reading.offset


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
        self._clock = clock
        # In the order of their instants. A log may tell of thousands: none of what is done for a line looks at all.
        self._readings: list[OffsetReading] = []
        self._ats: list[datetime] = []
        self._places: list[_Places] = []  # of each reading
        self._all_places: list[_Places] = []  # without repetition
        self._is_abroad = is_contradicted  # whether anything tells that the device was elsewhere in this session
        self._of_run: dict[str, list[OffsetReading]] = {}
        self._first_position: float = math.inf  # of any reading; -1 if one holds everywhere
        self._ahead: list[OffsetReading] = []  # readings whose place in the log may not be reached yet
        for reading in sorted(readings, key=_at):
            self._insert(reading)
            self._ahead.append(reading)
        self._latest = modified_at + LATE if modified_at else None
        self._last: datetime | None = None
        self._floor: datetime | None = None
        self._position = -1
        self._near: OffsetReading | None = None  # the reading with which the last line hangs together

    def add(self, reading: OffsetReading) -> None:
        """A reading found in the log itself: it holds from the present line on."""
        self._insert(replace(reading, position=self._position))

    def _insert(self, reading: OffsetReading) -> None:
        place = bisect_right(self._ats, reading.at)
        zones = None if self._clock.agrees(reading) else _zones_with(_quarter(reading.at), reading.offset)
        places = _Places(zones, reading.offset if zones is not None else timedelta())
        if places in self._all_places:
            places = self._all_places[self._all_places.index(places)]
        else:
            self._all_places.append(places)
            self._is_abroad |= zones is not None
        self._readings.insert(place, reading)
        self._ats.insert(place, reading.at)
        self._places.insert(place, places)
        if reading.run_id is not None:
            insort(self._of_run.setdefault(reading.run_id, []), reading, key=_at)
        self._first_position = min(self._first_position, -1 if reading.position is None else reading.position)

    def _holds(self, reading: OffsetReading) -> bool:
        """Whether the place in the log from which on a reading holds is reached."""
        return reading.position is None or reading.position <= self._position

    def _next(self, at: datetime) -> int:
        """The number of the first reading later than an instant."""
        return bisect_right(self._ats, at)

    def event_time(self, text: object, *, run_id: object = None, position: int | None = None) -> Instant | None:
        """The instant of an ISO time. `position`: of its line in the log. None if the text is no time."""
        if position is not None:
            if position < self._position:  # read once more, from further up
                self._ahead = self._readings
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
        if len(choices) == 1 and allowed and choices[0][1] is None:  # nothing to weigh
            self._floor = choices[0][0].at
            return choices[0][0]
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
        return best if best.is_ambiguous == is_doubtful else replace(best, is_ambiguous=is_doubtful)

    def _is_apart(self, at: datetime, reading: OffsetReading) -> bool:
        """Whether the device may have moved between a reading and an instant: the readings around it differ, and
        nothing happened for a while."""
        since = reading.at if self._near != reading or self._last is None else self._last
        is_near = -BLOCK_GAP <= at - since <= BLOCK_GAP
        self._near = reading if is_near else None
        for other in self._ahead:
            if (other.position or -1) > self._position and at > other.at + SLACK:
                return True  # what stands further on in the log is earlier
        if at < reading.at:
            return not is_near and self._is_abroad
        following = self._next(reading.at)
        if following == len(self._readings):
            return not self._clock.agrees(reading) and at - since > TRIP
        after = self._readings[following]
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
        if self._first_position > self._position:
            # What is read further on in the log may tell that the device was elsewhere.
            return [(_instant(local, at, "device_zone", self._is_abroad), None) for at in self._clock.passes(local)]
        own = self._of_run.get(run_id, ()) if isinstance(run_id, str) else ()
        for reading in own:
            if self._holds(reading):
                return self._by_reading(local, reading)
        valid = self._valid(local)
        placed = [choice for choice in valid if choice[1] and choice[1].position is not None]
        placed = [choice for choice in placed if self._is_possible(choice[0].at)]
        return placed or valid or [self._nearest(local)]

    def _valid(self, local: datetime) -> list[Choice]:
        """The instants by the readings in whose time they lie, which is from a reading until the next one, whether or
        not that one's place in the log is reached yet; both ends give by `SLACK`."""
        found: list[tuple[int, int, Choice]] = []
        for places in self._all_places:
            for number, at in enumerate(self._passes(local, places)):
                # Of several readings at one instant each holds.
                first = self._next(at - SLACK)
                first = bisect_left(self._ats, self._ats[first - 1]) if first else 0
                for index in range(first, self._next(at + SLACK)):
                    reading = self._readings[index]
                    if self._places[index] is places and self._holds(reading):
                        found.append((index, number, self._choice(local, at, reading, agrees=places.zones is None)))
        found.sort(key=itemgetter(0, 1))
        return [choice for _, _, choice in found]

    def _nearest(self, local: datetime) -> Choice:
        """The instant that lies least far beyond the time of its reading."""
        nearest: list[tuple[timedelta, Choice]] = []
        for reading in filter(self._holds, self._readings):
            following = self._next(reading.at)
            end = self._ats[following] if following < len(self._ats) else None
            for choice in self._by_reading(local, reading):
                at = choice[0].at
                beyond = at - end if end is not None else timedelta()
                nearest.append((max(reading.at - at, beyond, timedelta()), choice))
        return min(nearest, key=itemgetter(0))[1]

    def _passes(self, local: datetime, places: _Places) -> tuple[datetime, ...]:
        """A reading that agrees with the device's zone says that the zone holds, through changes of its offset too.

        Any other means some place with that offset; where the clocks of such places changed since, it means several
        instants.
        """
        if places.zones is None:
            return self._clock.passes(local)
        at = (local - places.offset).replace(tzinfo=UTC)
        return tuple([at + shift for shift in _shifts(places.zones, places.offset, _quarter(at))])

    def _by_reading(self, local: datetime, reading: OffsetReading) -> list[Choice]:
        """What a local time may mean by one reading."""
        index = self._readings.index(reading, bisect_left(self._ats, reading.at))
        places = self._places[index]
        agrees = places.zones is None
        return [self._choice(local, at, reading, agrees=agrees) for at in self._passes(local, places)]

    @staticmethod
    def _choice(local: datetime, at: datetime, reading: OffsetReading, *, agrees: bool) -> Choice:
        # The time of a file is one coincidence, and copying changes it.
        is_weak = (reading.basis == "file_modified_at" or reading.is_doubtful) and not agrees
        return _instant(local, at, reading.basis, is_weak), reading

    @staticmethod
    def _is_own(reading: OffsetReading, run_id: object) -> bool:
        return run_id is not None and reading.run_id == run_id


def _passes(local: datetime, zone: ZoneInfo) -> tuple[datetime, ...]:
    offset = _steady_offset(local.replace(minute=0, second=0, microsecond=0), zone)
    if offset is not None:
        return ((local - offset).replace(tzinfo=UTC),)
    aware = local.replace(tzinfo=zone)
    first, second = aware.replace(fold=0).astimezone(UTC), aware.replace(fold=1).astimezone(UTC)
    return (first, second) if first < second else (first,)


@lru_cache(maxsize=10_000)
def _steady_offset(hour: datetime, zone: ZoneInfo) -> timedelta | None:
    """The offset of every local time of an hour; None if clocks change in it."""
    begin = hour.replace(tzinfo=zone, fold=0)
    ends = (begin, begin + timedelta(hours=1))  # both ends, each by both of its readings
    offsets = {end.replace(fold=fold).utcoffset() for end in ends for fold in (0, 1)}
    return offsets.pop() if len(offsets) == 1 else None


@lru_cache(maxsize=10_000)
def _offset_at(at: datetime, zone: ZoneInfo) -> timedelta | None:
    return at.astimezone(zone).utcoffset()


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
def _zones_with(at: datetime, offset: timedelta) -> tuple[ZoneInfo, ...]:
    return tuple(zone for zone in _zones() if at.astimezone(zone).utcoffset() == offset)


def _at(reading: OffsetReading) -> datetime:
    return reading.at


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


def _instant(local: datetime, at: datetime, basis: str, is_ambiguous: bool) -> Instant:
    offset = local.replace(tzinfo=UTC) - at
    return Instant(at, "local_resolved", is_ambiguous, int(offset.total_seconds()), basis)


def _bounded(instant: Instant) -> Instant | None:
    return instant if EARLIEST_WRITTEN <= instant.at < LATEST else None
