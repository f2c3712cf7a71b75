"""Which run covers which day of arrival: none may fall between the partitions."""

from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from pipelines.defs import partitions
from pipelines.defs.partitions import covered, nearest
from pipelines.warehouse import arrivals

FIRST_DAY, TODAY = date(2026, 2, 1), date(2026, 3, 10)


@pytest.fixture(autouse=True)
def _first_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partitions, "FIRST_DAY", FIRST_DAY)


@pytest.mark.parametrize(
    "day", [date(1970, 1, 1), date(2019, 12, 31), FIRST_DAY, date(2026, 3, 1), TODAY, date(2040, 1, 1)]
)
def test_the_nearest_partition_covers_a_day(day: date) -> None:
    partition = nearest(day, today=TODAY)
    assert FIRST_DAY <= partition <= TODAY
    assert covered(day, first=partition, last=partition, today=TODAY)


@pytest.mark.parametrize(
    ("day", "is_covered"),
    [(date(2026, 3, 4), False), (date(2026, 3, 5), True), (date(2026, 3, 6), True), (date(2026, 3, 7), False),
     (date(1970, 1, 1), False), (date(2040, 1, 1), False)],
)  # fmt: skip
def test_a_run_of_some_days_covers_no_other(day: date, is_covered: bool) -> None:
    assert covered(day, first=date(2026, 3, 5), last=date(2026, 3, 6), today=TODAY) is is_covered


def test_a_run_that_a_daemon_asks_for_covers_what_lies_before_the_first_day_that_the_daemon_knows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tags = partitions.arrival_range(FIRST_DAY, TODAY)
    assert partitions.AND_BEFORE in tags
    assert partitions.AND_BEFORE not in partitions.arrival_range(date(2026, 2, 2), TODAY)
    monkeypatch.setattr(partitions, "FIRST_DAY", date(2026, 1, 1))  # as the run finds it noted
    old = date(2026, 1, 15)
    assert covered(old, first=FIRST_DAY, last=TODAY, today=TODAY, and_before=partitions.AND_BEFORE in tags)
    assert not covered(old, first=FIRST_DAY, last=TODAY, today=TODAY)


def test_the_partitions_begin_with_the_first_arrival(tmp_path: Path) -> None:
    note, today = tmp_path / "first_arrival_day", datetime.now(UTC).date()
    assert arrivals.first_day(note) == today, "nothing has arrived"
    for written, expected in (
        ("2026-11-20\n", date(2026, 11, 20)), ("1970-01-01", date(2020, 1, 1)), ("2999-01-01", today), ("?", today),
    ):  # fmt: skip
        note.write_text(written, "utf-8")
        assert arrivals.first_day(note) == min(expected, today)
