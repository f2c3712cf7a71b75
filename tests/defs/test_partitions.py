"""Which run covers which day of arrival: none may fall between the partitions."""

from datetime import date

import pytest

from pipelines.defs.partitions import FIRST_DAY, covered, nearest

TODAY = date(2026, 3, 10)


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
