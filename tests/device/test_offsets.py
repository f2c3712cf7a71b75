"""The writer's UTC offset: local times of a device that travels, through nights on which clocks change.

The oracle is `zoneinfo`: instants are drawn, written down as the wall clock of where the device was, and read back.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.device.clock import BLOCK_GAP, TRIP, Clock, LogClock, OffsetReading, local_time, offset_reading, utc_time
from pipelines.device.readers.hive import offset_readings as hive_offsets
from tests.device.driving import Json, append, dump, event, granted, queen_folder, step, tool, turn

ZONES = (
    "Europe/Berlin", "America/New_York", "America/Los_Angeles", "Asia/Tokyo", "Asia/Kathmandu", "Australia/Lord_Howe",
    "Pacific/Apia", "Pacific/Pago_Pago", "UTC",
)  # fmt: skip
# Around the nights on which the clocks of some of these zones are put back or forward, and on other days.
STARTS = [
    datetime(2026, 10, 24, 20, tzinfo=UTC), datetime(2026, 11, 1, 2, tzinfo=UTC), datetime(2026, 3, 28, 20, tzinfo=UTC),
    datetime(2026, 4, 4, 12, tzinfo=UTC), datetime(2026, 7, 15, 8, tzinfo=UTC),
]  # fmt: skip
instants = st.datetimes(datetime(2001, 1, 1), datetime(2099, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
offsets = st.integers(-56, 56).map(lambda quarters: timedelta(minutes=15 * quarters))


@dataclass(frozen=True)
class Leg:
    """Some hours in one zone: the instants at which lines were written there."""

    zone: str
    lines: tuple[datetime, ...]

    def wall_clock(self, at: datetime) -> datetime:
        return at.astimezone(ZoneInfo(self.zone)).replace(tzinfo=None)

    def reading(self) -> OffsetReading:
        at = self.lines[0]
        found = offset_reading(self.wall_clock(at), at, "run_created_at", early=timedelta(), late=timedelta())
        assert found is not None
        return found

    def is_readable_from(self, device_zone: str) -> bool:
        """Whether a reading tells where the leg was: it must not look like one at home."""
        home, place = ZoneInfo(device_zone), ZoneInfo(self.zone)
        told = [at.astimezone(place).utcoffset() for at in self.lines]
        if told[0] == self.lines[0].astimezone(home).utcoffset():
            return told == [at.astimezone(home).utcoffset() for at in self.lines]
        return True


@st.composite
def itineraries(draw: st.DrawFn) -> tuple[str, list[Leg]]:
    device_zone = draw(st.sampled_from(ZONES))
    at = draw(st.sampled_from(STARTS)) + timedelta(minutes=draw(st.integers(0, 600)))
    legs = []
    for zone in draw(st.lists(st.sampled_from(ZONES), min_size=1, max_size=4)):
        lines = [at]
        for gap in draw(st.lists(st.integers(1, 90), max_size=12)):
            lines.append(lines[-1] + timedelta(minutes=gap, microseconds=1))
        leg = Leg(zone, tuple(lines))
        if leg.is_readable_from(device_zone):
            legs.append(leg)
        at = lines[-1] + timedelta(hours=draw(st.integers(2, 20)))
    return device_zone, legs


@given(itineraries())
@settings(max_examples=100, deadline=None)
def test_a_travelling_log_is_resolved_exactly_or_flagged(drawn: tuple[str, list[Leg]]) -> None:
    device_zone, legs = drawn
    log = LogClock(Clock(device_zone), [leg.reading() for leg in legs])
    for leg in legs:
        for at in leg.lines:
            found = log.event_time(leg.wall_clock(at).isoformat())
            assert found is not None
            assert found.at == at or found.is_ambiguous, (leg.zone, at)
            local = found.at + timedelta(seconds=found.utc_offset_seconds or 0)
            assert local.replace(tzinfo=None) == leg.wall_clock(at), "the local time as written comes back"


@given(itineraries(), st.data())
@settings(max_examples=80, deadline=None)
def test_a_leg_without_evidence_is_flagged_where_others_contradict(
    drawn: tuple[str, list[Leg]], data: st.DataObject
) -> None:
    """The last leg tells its offset, from its first line on; of the others some do."""
    device_zone, legs = drawn
    if not legs:
        return
    told = [*data.draw(st.lists(st.booleans(), min_size=len(legs) - 1, max_size=len(legs) - 1)), True]
    readings = [
        replace(leg.reading(), position=n if n == len(legs) - 1 else None)
        for n, (leg, is_told) in enumerate(zip(legs, told, strict=True))
        if is_told
    ]
    home = Clock(device_zone)
    if all(home.agrees(reading) for reading in readings):
        return  # nothing tells that it travelled
    log = LogClock(home, readings)
    known = [at for leg, is_told in zip(legs, told, strict=True) if is_told for at in leg.lines]
    for number, (leg, is_told) in enumerate(zip(legs, told, strict=True)):
        is_hidden = False
        for at in leg.lines:
            found = log.event_time(leg.wall_clock(at).isoformat(), position=number)
            assert found is not None
            is_hidden |= not is_told and _is_plausible(found.at, readings, home, known)
            assert found.at == at or found.is_ambiguous or is_hidden, (leg.zone, at)


def _is_plausible(at: datetime, readings: list[OffsetReading], home: Clock, known: list[datetime]) -> bool:
    """Whether nothing contradicts an instant.

    It lies between two readings of one zone, close to one, or after a line of a leg that tells its offset,
    by no longer than a journey takes.
    """
    before, after = [r for r in readings if r.at <= at], [r for r in readings if r.at > at]
    around = [*before[-1:], *after[:1]]
    is_between = len(around) == 2 and (len({r.offset for r in around}) == 1 or all(map(home.agrees, around)))
    is_close = any(abs(at - r.at) <= BLOCK_GAP for r in readings)
    return is_between or is_close or any(timedelta() <= at - line <= TRIP for line in known)


@given(
    zone=st.sampled_from(["America/New_York", "America/Los_Angeles", "Australia/Lord_Howe", "Europe/Berlin"]),
    start=st.sampled_from(STARTS),
    gaps=st.lists(st.integers(1, 25), min_size=30, max_size=40),
)
@settings(max_examples=60, deadline=None)
def test_the_second_pass_abroad_is_told_by_the_order_of_lines(zone: str, start: datetime, gaps: list[int]) -> None:
    """The device is at home in a zone of another offset: only the session's beginning tells the offset."""
    leg = Leg(zone, tuple(start + timedelta(minutes=sum(gaps[:n]), seconds=n) for n in range(len(gaps))))
    log = LogClock(Clock("Asia/Kathmandu"), [leg.reading()])
    for at in leg.lines:
        found = log.event_time(leg.wall_clock(at).isoformat())
        assert found is not None
        assert found.at == at or found.is_ambiguous
        if at.astimezone(ZoneInfo(zone)).fold:
            assert found.at == at


def test_an_hour_goes_by_twice_abroad() -> None:
    """A laptop of Berlin in New York, in the night on which clocks are put back there."""
    log = LogClock(Clock("Europe/Berlin"), [OffsetReading(NIGHT, timedelta(hours=-4), "session_created_at")])
    found = [log.event_time(f"2026-11-01T{text}:00") for text in ("01:30", "01:10", "01:50", "05:00")]
    minutes = [(at.at - NIGHT) / timedelta(minutes=1) for at in found if at is not None]
    assert minutes[:3] == [90, 130, 170]
    assert [at.is_ambiguous for at in found if at is not None][1:] == [False, False, True], "the place is not known"


NIGHT = datetime(2026, 11, 1, 4, tzinfo=UTC)


def test_lines_that_look_close_at_the_end_of_a_log_may_be_of_two_passes(tmp_path: Path) -> None:
    """At home, in the night of the change: two lines of the first pass and, 70 minutes later, one of the second."""
    home, first = tmp_path / "hive", datetime(2026, 10, 25, 0, 10, tzinfo=UTC)
    times = [first, first + timedelta(minutes=10), first + timedelta(minutes=80)]
    lines = [
        turn(n, session=SESSION, at=Leg("Europe/Berlin", ()).wall_clock(at).isoformat()) for n, at in enumerate(times)
    ]
    log_of(home, *lines, at=times[-1] + timedelta(seconds=1))
    rows = used(tmp_path / "apiary", home)
    assert [row["occurred_at"] == at or row["is_time_ambiguous"] for row, at in zip(rows, times, strict=True)] == [
        True
    ] * 3


def test_hours_after_the_only_reading_of_a_journey_are_flagged() -> None:
    """From New York home to Berlin or on to Tokyo: nothing tells of the later leg."""
    log = LogClock(Clock("Europe/Berlin"), [OffsetReading(BEGUN, NEW_YORK, "session_created_at")])
    found = [log.event_time(local(BEGUN + timedelta(hours=hours))) for hours in (1, 2, 12)]
    assert [at.is_ambiguous for at in found if at is not None] == [False, False, True]


def test_a_step_back_that_no_change_of_clocks_explains_is_flagged() -> None:
    log = LogClock(Clock("Europe/Berlin"))
    first, second = (log.event_time(f"2026-07-01T{text}:00") for text in ("12:00", "08:30"))
    assert first is not None
    assert second is not None
    assert (first.is_ambiguous, second.is_ambiguous) == (False, True)


@given(itineraries())
@settings(max_examples=100, deadline=None)
def test_a_run_that_is_named_is_resolved_by_its_own_reading(drawn: tuple[str, list[Leg]]) -> None:
    device_zone, legs = drawn
    readings = [OffsetReading(r.at, r.offset, r.basis, str(n)) for n, r in enumerate(leg.reading() for leg in legs)]
    log = LogClock(Clock(device_zone), readings)
    for number, leg in enumerate(legs):
        for before, at in pairwise((None, *leg.lines)):
            found = log.event_time(leg.wall_clock(at).isoformat(), run_id=str(number))
            assert found is not None
            assert found.at == at or found.is_ambiguous, (leg.zone, before, at)
            if leg.zone == device_zone and len(Clock(device_zone).passes(leg.wall_clock(at))) == 1:
                assert not found.is_ambiguous, (leg.zone, before, at)


@given(
    zone=st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]),
    start=st.sampled_from(STARTS),
    gaps=st.lists(st.integers(1, 25), min_size=30, max_size=40),
)
@settings(max_examples=60)
def test_the_second_pass_of_an_hour_is_told_by_the_order_of_lines(zone: str, start: datetime, gaps: list[int]) -> None:
    """Lines come closer together than the clock was put back: the first of the second pass steps back."""
    log, at = LogClock(Clock(zone)), start
    for gap in gaps:
        at += timedelta(minutes=gap)
        found = log.event_time(at.astimezone(ZoneInfo(zone)).replace(tzinfo=None).isoformat())
        assert found is not None
        assert found.at == at
        assert not (found.is_ambiguous and at.astimezone(ZoneInfo(zone)).fold), "it is not left in doubt"


@given(instants, offsets, st.floats(-2, 2))
def test_two_times_written_together_tell_the_offset(at: datetime, offset: timedelta, apart: float) -> None:
    local = (at + offset).replace(tzinfo=None)
    reading = offset_reading(
        local, at + timedelta(seconds=apart), "run_created_at", early=timedelta(seconds=2), late=timedelta(seconds=2)
    )
    assert reading is not None
    assert reading.offset == offset


@given(instants, st.integers(-(10**6), 10**6))
def test_times_that_no_offset_explains_tell_nothing(at: datetime, seconds: int) -> None:
    local = (at + timedelta(seconds=seconds)).replace(tzinfo=None)
    reading = offset_reading(local, at, "x", early=timedelta(seconds=2), late=timedelta(seconds=2))
    remainder = min(seconds % 900, -seconds % 900)
    assert (reading is None) == (remainder > 2 or abs(round(seconds / 900)) > 56)


def test_a_leap_second_is_dated() -> None:
    """It is the last microsecond of its minute: a second that a clock shows must not cost the turn its date."""
    found = Clock("Europe/Berlin").event_time("2017-01-01T00:59:60.5")
    assert found is not None
    assert found.at == datetime(2016, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
    for text in ("2016-12-31T23:59:60", "2016-12-31T23:59:60Z", "2016-12-31 23:59:60.25+00:00"):
        assert utc_time(text) == found.at
    assert local_time("2016-12-31T23:60:00") is None


# A whole home ----------------------------------------------------------------------------------------------------

SESSION = "session_20261115_200000_0a1b2c3d"
NEW_YORK = timedelta(hours=-5)
BEGUN = datetime(2026, 11, 16, 1, tzinfo=UTC)  # 20:00 in New York
MIDDAY = BEGUN + timedelta(hours=36)


def local(at: datetime, offset: timedelta = NEW_YORK) -> str:
    return (at + offset).replace(tzinfo=None).isoformat()


def written(path: Path, at: datetime) -> Path:
    os.utime(path, (at.timestamp(), at.timestamp()))
    return path


def used(root: Path, home: Path) -> list[Json]:
    """The turns that a device enrolled in Berlin delivers, in the order of time."""
    made = granted(root, home)
    made.ship(home)
    return sorted(made.delivered("llm_turns"), key=lambda row: row["iteration"])


def log_of(home: Path, *lines: Json, at: datetime = MIDDAY) -> Path:
    return written(append(queen_folder(home, SESSION) / "events.jsonl", dump(*lines)), at)


def turns(*times: datetime, first: int = 0, **other: object) -> list[Json]:
    return [{**turn(n, session=SESSION, at=local(at)), **other} for n, at in enumerate(times, first)]


def test_meta_json_tells_the_offset(tmp_path: Path) -> None:
    home, at = tmp_path / "hive", BEGUN + timedelta(seconds=30)
    log_of(home, *turns(at))
    (queen_folder(home, SESSION) / "meta.json").write_text(json.dumps({"created_at": BEGUN.timestamp() + 0.7}))
    (row,) = used(tmp_path / "apiary", home)
    assert (row["occurred_at"], row["offset_basis"], row["utc_offset_seconds"]) == (at, "session_created_at", -18_000)
    assert not row["is_time_ambiguous"]


def test_a_restored_session_tells_nothing(tmp_path: Path) -> None:
    """One version overwrites the time on every restore; three hours later, to the second, its own log disproves it."""
    home, at = tmp_path / "hive", BEGUN + timedelta(seconds=30)
    for restored, basis in ((BEGUN + timedelta(hours=3, seconds=77), 1), (BEGUN + timedelta(hours=3), 2)):
        folder = home / str(basis)
        log_of(folder, *turns(at), at=at + timedelta(seconds=90))
        (queen_folder(folder, SESSION) / "meta.json").write_text(json.dumps({"created_at": restored.timestamp()}))
        (row,) = used(tmp_path / f"apiary-{basis}", folder)
        assert row["offset_basis"] == "device_zone"


def test_the_first_leg_of_a_restored_session_is_flagged(tmp_path: Path) -> None:
    """meta.json was overwritten by the restore; the end of the log tells that the laptop is not at home."""
    home, restored = tmp_path / "hive", BEGUN + timedelta(hours=3, seconds=77)
    times = [BEGUN + timedelta(seconds=30), restored + timedelta(minutes=1), restored + timedelta(minutes=2)]
    log_of(home, *turns(*times), at=times[-1])
    (queen_folder(home, SESSION) / "meta.json").write_text(json.dumps({"created_at": restored.timestamp()}))
    rows = used(tmp_path / "apiary", home)
    assert [row["occurred_at"] for row in rows[1:]] == times[1:]
    assert rows[0]["occurred_at"] == times[0] or rows[0]["is_time_ambiguous"]


def test_a_beginning_that_the_end_disproves_is_doubted(tmp_path: Path) -> None:
    """From New York over Tokyo home to Berlin: by the offset of the beginning the last line is later than the file, as
    if meta.json had been overwritten."""
    home, tokyo, berlin = tmp_path / "hive", timedelta(hours=9), timedelta(hours=1)
    legs = [(BEGUN, NEW_YORK), (BEGUN + timedelta(hours=4), tokyo), (BEGUN + timedelta(hours=14), berlin)]
    lines = [turn(n, session=SESSION, at=local(at, offset)) for n, (at, offset) in enumerate(legs)]
    log_of(home, *lines, at=legs[-1][0] + timedelta(seconds=1))
    (queen_folder(home, SESSION) / "meta.json").write_text(json.dumps({"created_at": BEGUN.timestamp()}))
    rows = used(tmp_path / "apiary", home)
    assert rows[2]["occurred_at"] == legs[2][0]
    assert [row["occurred_at"] == at or row["is_time_ambiguous"] for row, (at, _) in zip(rows, legs, strict=True)] == [
        True, True, True
    ]  # fmt: skip


EAST = {
    "flown to Tokyo": ("Asia/Tokyo", [timedelta(minutes=1), timedelta(hours=1), timedelta(hours=40)]),
    "weeks later": ("America/New_York", [timedelta(minutes=1), timedelta(days=160)]),
    "in the night of the change": ("America/New_York", [timedelta(hours=2), timedelta(hours=5), timedelta(hours=6)]),
}


@pytest.mark.parametrize("name", EAST)
def test_a_session_that_began_further_west_keeps_its_beginning(tmp_path: Path, name: str) -> None:
    """Its clock was put forward, by a flight or by summer time: by the offset of its beginning its last line would be
    later than the file, and a laptop enrolled in Berlin is at home in neither."""
    zone, gaps = EAST[name]
    begun = BEGUN if zone == "Asia/Tokyo" else datetime(2026, 3, 8, 1, tzinfo=UTC)
    times = [begun + gap for gap in gaps]
    elsewhere = [at.astimezone(ZoneInfo("America/New_York")).replace(tzinfo=None).isoformat() for at in times[:-1]]
    elsewhere.append(times[-1].astimezone(ZoneInfo(zone)).replace(tzinfo=None).isoformat())
    home, session = tmp_path / "hive", f"session_{begun + NEW_YORK:%Y%m%d_%H%M%S}_0a1b2c3d"
    folder = queen_folder(home, session)
    lines = [turn(n, session=session, at=at) for n, at in enumerate(elsewhere)]
    written(append(folder / "events.jsonl", dump(*lines)), times[-1])
    (folder / "meta.json").write_text(json.dumps({"created_at": begun.timestamp()}))
    rows = used(tmp_path / "apiary", home)
    assert [row["occurred_at"] for row in rows] == times
    assert {row["is_time_ambiguous"] for row in rows} == {True}, "it might have been overwritten as well"


def test_each_run_tells_its_own_offset(tmp_path: Path) -> None:
    """The session begins in New York and goes on in Tokyo: events name their runs."""
    home, tokyo = tmp_path / "hive", timedelta(hours=9)
    later = BEGUN + timedelta(hours=20)
    runs = [
        {"run_id": run * 12, "event": "run_started", "timestamp": local(at, offset), "created_at": at.timestamp()}
        for run, at, offset in (("a", BEGUN, NEW_YORK), ("b", later, tokyo))
    ]
    events = [
        {**turn(n, session=SESSION, at=local(at, offset)), "run_id": run * 12}
        for n, (run, at, offset) in enumerate(
            [("a", BEGUN + timedelta(minutes=5), NEW_YORK), ("b", later + timedelta(minutes=5), tokyo)]
        )
    ]
    log_of(home, *events)
    append(queen_folder(home, SESSION) / "runs.jsonl", dump(*runs))
    first, second = used(tmp_path / "apiary", home)
    assert first["occurred_at"] == BEGUN + timedelta(minutes=5)
    assert second["occurred_at"] == later + timedelta(minutes=5)
    assert {first["offset_basis"], second["offset_basis"]} == {"run_created_at"}


def test_a_tool_s_utc_start_tells_the_offset(tmp_path: Path) -> None:
    home, at = tmp_path / "hive", BEGUN + timedelta(minutes=1)
    call = {"tool_use_id": "toolu_1", "tool_name": "read_file", "tool_input": {}}
    started = event("tool_call_started", call, at=local(at), session=SESSION)
    log_of(home, started, *turns(at + timedelta(seconds=9)))
    append(
        queen_folder(home, SESSION) / "logs" / "tool_logs.jsonl",
        dump(step(0, tool_calls=[tool((at + timedelta(milliseconds=3)).isoformat())])),
    )
    (row,) = used(tmp_path / "apiary", home)
    assert (row["occurred_at"], row["offset_basis"]) == (at + timedelta(seconds=9), "tool_started_at")


def test_the_log_s_own_time_tells_the_offset_and_is_doubted(tmp_path: Path) -> None:
    home, at = tmp_path / "hive", BEGUN + timedelta(minutes=10)
    log_of(home, *turns(at - timedelta(minutes=9), at), at=at + timedelta(milliseconds=400))
    rows = used(tmp_path / "apiary", home)
    assert [row["occurred_at"] for row in rows] == [at - timedelta(minutes=9), at]
    assert {(row["offset_basis"], row["is_time_ambiguous"]) for row in rows} == {("file_modified_at", True)}


def test_a_session_goes_on_elsewhere_between_two_passes(tmp_path: Path) -> None:
    """meta.json tells where it began; the log's own time tells where it went on."""
    home, berlin = tmp_path / "hive", timedelta(hours=1)
    begun = BEGUN - timedelta(hours=6)  # 20:00 in Berlin
    log_of(home, turn(0, session=SESSION, at=local(begun, berlin)), at=begun + timedelta(seconds=1))
    (queen_folder(home, SESSION) / "meta.json").write_text(json.dumps({"created_at": begun.timestamp()}))
    made = granted(tmp_path / "apiary", home)
    made.ship(home)
    later = begun + timedelta(hours=12)
    log_of(home, *turns(later, later + timedelta(minutes=3), first=1), at=later + timedelta(minutes=3, seconds=1))
    made.ship(home)
    rows = sorted(made.delivered("llm_turns"), key=lambda row: row["iteration"])
    assert [row["occurred_at"] for row in rows] == [begun, later, later + timedelta(minutes=3)]


def test_a_line_later_than_its_file_is_doubted(tmp_path: Path) -> None:
    home, at = tmp_path / "hive", BEGUN + timedelta(minutes=10)
    log_of(home, *turns(at), at=at - timedelta(hours=9, seconds=100))
    (row,) = used(tmp_path / "apiary", home)
    assert row["is_time_ambiguous"]


@given(st.lists(st.tuples(st.integers(0, 3_000), st.booleans()), min_size=1, max_size=20), st.integers(0, 40))
def test_the_end_of_a_log_is_found_in_any_piece_of_it(parts: list[tuple[int, bool]], cut: int) -> None:
    at = datetime(2026, 5, 4, 10, 15)  # noqa: DTZ001 - as written
    lines = []
    for seconds, is_text in parts:
        at += timedelta(seconds=seconds)
        kind = "llm_text_delta" if is_text else "node_loop_started"
        lines.append(event(kind, {}, at=(at - timedelta(minutes=5) if is_text else at).isoformat()))
    data = dump(*lines)
    timed = [n for n, (_, is_text) in enumerate(parts) if not is_text]
    modified_at = at.replace(tzinfo=UTC) - timedelta(hours=2)
    reading = hive_offsets.from_tail(data[cut:], cut, modified_at)
    if not timed or sum(seconds for seconds, _ in parts[timed[-1] + 1 :]) > 2:
        assert reading is None or not timed or reading.offset != timedelta(hours=2)
    elif timed[-1] > 0 or not cut:
        assert reading is not None
        assert reading.offset == timedelta(hours=2)
        assert data[reading.position :].startswith(b'{"type": "node_loop_started"')


@pytest.mark.parametrize("line", [b"", b"{", b'{"type": "x", "timestamp": "yesterday"}\n', b"\n\n", b"\x00\n"])
def test_a_log_without_times_tells_nothing(line: bytes) -> None:
    assert hive_offsets.from_tail(line, 0, BEGUN) is None
    assert hive_offsets.confirmed([], line, 0, BEGUN, None) == []
