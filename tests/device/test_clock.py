"""Times: a naive local time is resolved in the device's zone, and what it cannot say is flagged."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.device.clock import Clock, epoch_time, local_stamp, local_time, utc_time

ZONES = ("Europe/Berlin", "America/Los_Angeles", "Australia/Lord_Howe", "Asia/Kolkata", "America/Sao_Paulo", "UTC")
instants = st.datetimes(datetime(2001, 1, 1), datetime(2099, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@given(zone=st.sampled_from(ZONES), instant=instants)
def test_an_instant_written_as_local_time_comes_back(zone: str, instant: datetime) -> None:
    naive = instant.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    found = Clock(zone).event_time(naive.isoformat())
    assert found is not None
    assert found.basis == "local_resolved"
    if found.is_ambiguous:
        assert timedelta() <= instant - found.at <= timedelta(hours=1), "the first of the two passes is taken"
    else:
        assert found.at == instant


@given(zone=st.sampled_from(ZONES), naive=st.datetimes(datetime(2001, 1, 1), datetime(2099, 1, 1)))  # noqa: DTZ001
@settings(max_examples=300)
def test_a_local_time_is_ambiguous_exactly_if_it_occurs_twice(zone: str, naive: datetime) -> None:
    place = ZoneInfo(zone)
    around = [naive.replace(tzinfo=UTC) + timedelta(minutes=minutes) for minutes in range(-15 * 60, 15 * 60, 30)]
    offsets = {at.astimezone(place).utcoffset() for at in around}
    occurrences = {
        naive - offset
        for offset in offsets
        if offset is not None
        and (naive - offset).replace(tzinfo=UTC).astimezone(place).replace(tzinfo=None, fold=0) == naive
    }
    found = Clock(zone).event_time(naive.isoformat())
    assert found is not None
    assert found.is_ambiguous == (len(occurrences) == 2)
    if occurrences:
        assert found.at.replace(tzinfo=None) == min(occurrences)


@pytest.mark.parametrize(
    ("zone", "twice", "at"),
    [
        ("Europe/Berlin", "2026-10-25T02:30:00", "2026-10-25T00:30:00+00:00"),
        ("America/Los_Angeles", "2026-11-01T01:10:00", "2026-11-01T08:10:00+00:00"),
        ("Australia/Lord_Howe", "2026-04-05T01:45:00", "2026-04-04T14:45:00+00:00"),  # a fold of half an hour
    ],
)
def test_an_hour_that_occurs_twice_is_its_first_pass_and_flagged(zone: str, twice: str, at: str) -> None:
    found = Clock(zone).event_time(twice)
    assert found is not None
    assert (found.at.isoformat(), found.is_ambiguous) == (at, True)


@pytest.mark.parametrize(
    ("zone", "never", "at"),
    [
        ("Europe/Berlin", "2026-03-29T02:30:00", "2026-03-29T01:30:00+00:00"),
        ("America/Los_Angeles", "2026-03-08T02:30:00", "2026-03-08T10:30:00+00:00"),
        ("Australia/Lord_Howe", "2026-10-04T02:10:00", "2026-10-03T15:40:00+00:00"),
    ],
)
def test_an_hour_that_never_occurs_moves_on_by_the_gap(zone: str, never: str, at: str) -> None:
    found = Clock(zone).event_time(never)
    assert found is not None
    assert (found.at.isoformat(), found.is_ambiguous) == (at, False)


def test_an_offset_is_believed() -> None:
    found = Clock("Europe/Berlin").event_time("2026-05-04T12:00:00+02:00")
    assert found is not None
    assert (found.at, found.basis) == (datetime(2026, 5, 4, 10, tzinfo=UTC), "utc")


@pytest.mark.parametrize(
    "text",
    [
        None, 5, "", "yesterday", "2026-13-01T00:00:00", "1970-01-01T00:00:00", "2262-01-01T00:00:00",
        "0001-01-01T00:00:00", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-12:00", "9999-12-31T23:59:59",
    ],
)  # fmt: skip
def test_no_time_is_no_time_and_no_crash(text: object) -> None:
    for zone in ZONES:
        assert Clock(zone).event_time(text) is None
    assert utc_time(text) is None


def test_both_texts_of_sqlite_are_the_same_time() -> None:
    at = datetime(2026, 5, 4, 19, tzinfo=UTC)
    assert utc_time("2026-05-04T19:00:00+00:00") == utc_time("2026-05-04 19:00:00") == at
    assert utc_time("2026-05-04T21:00:00+02:00") == at


def test_epoch_seconds_keep_their_microseconds() -> None:
    assert epoch_time(Decimal("1777892399.123456")) == datetime(2026, 5, 4, 10, 59, 59, 123456, tzinfo=UTC)
    assert epoch_time(1777892399) == datetime(2026, 5, 4, 10, 59, 59, tzinfo=UTC)


@pytest.mark.parametrize("value", [None, True, "1777892399", 5, -(10**30), 10**30, Decimal("1E+999990"), Decimal("-5")])
def test_a_number_that_is_no_time_is_refused_at_once(value: object) -> None:
    started = time.monotonic()
    assert epoch_time(value) is None
    assert time.monotonic() - started < 0.5


def test_the_start_that_a_session_id_tells() -> None:
    for name in ("session_20260504_101500_0a1b2c3d", "20260504T101500_0a1b2c3d"):
        assert local_stamp(name) == "2026-05-04T10:15:00"
    for name in ("", "nightly-sweep", "session_20261304_101500_0a1b2c3d", "session_٢٠٢٦٠٥٠٤_101500_0a1b2c3d"):
        assert local_time(local_stamp(name)) is None
