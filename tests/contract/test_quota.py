"""The quota snapshot's form: one way to write it, and nothing else is taken for one."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.contract.quota import (
    MAX_BYTES,
    Budget,
    Counted,
    Snapshot,
    SnapshotError,
    as_of_in_key,
    parse,
    period_of,
    prefix,
    sha16_of_key,
)

AS_OF = datetime(2026, 11, 20, 8, tzinfo=UTC)
DAY = (datetime(2026, 11, 20, tzinfo=UTC), datetime(2026, 11, 21, tzinfo=UTC))
BUDGET = Budget(
    scope="user", user="ada", period="day", start=DAY[0], end=DAY[1], measure="reported_cost_usd",
    limit=Decimal("100.5"), warn_at=Decimal("0.8"), used=Decimal("0.00000000000000000001"), unpriced_tokens=7,
    unpriced_limit_tokens=10**15,
)  # fmt: skip
COUNTED = Counted(device="0" * 32, epoch="a" * 16, ranges=((1, 4), (6, 6)))
SNAPSHOT = Snapshot(tenant="acme", region="eu", as_of=AS_OF, counted=(COUNTED,), budgets=(BUDGET,))


def test_it_comes_back_as_it_went() -> None:
    assert parse(SNAPSHOT.to_json()) == SNAPSHOT


def test_the_newest_sorts_first_and_the_name_binds_the_content() -> None:
    later = replace(SNAPSHOT, as_of=AS_OF + timedelta(seconds=1))
    much_later = replace(SNAPSHOT, as_of=AS_OF + timedelta(days=20_000))
    assert much_later.key < later.key < SNAPSHOT.key
    assert SNAPSHOT.key.startswith(prefix("eu", "acme"))
    assert sha16_of_key(SNAPSHOT.key, region="eu", tenant="acme") == SNAPSHOT.sha256[:16]
    assert sha16_of_key(SNAPSHOT.key, region="eu", tenant="acm") is None
    assert as_of_in_key(SNAPSHOT.key, region="eu", tenant="acme") == SNAPSHOT.as_of
    assert as_of_in_key(SNAPSHOT.key, region="eu", tenant="acm") is None
    assert replace(SNAPSHOT, budgets=()).key != SNAPSHOT.key


def test_a_device_keeps_nothing_of_other_people() -> None:
    others = replace(BUDGET, user="bob")
    whole = replace(BUDGET, scope="tenant", user=None)
    other = Counted(device="1" * 32, epoch="a" * 16, ranges=((1, 9),))
    mine = replace(SNAPSHOT, counted=(COUNTED, other), budgets=(BUDGET, others, whole)).for_device("0" * 32, "ada")
    assert mine == replace(SNAPSHOT, budgets=(BUDGET, whole))
    assert b"bob" not in mine.to_json()
    assert parse(mine.to_json()) == mine


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2}, {"version": "1"}, {"tenant": "a@b.c"}, {"tenant": 7}, {"region": ""}, {"as_of": "2026-11-20"},
        {"as_of": "2026-11-20T09:00:00+01:00"}, {"as_of": None}, {"counted": {}}, {"budgets": [None]},
        {"sha256": "0" * 64}, {"more": 1},
    ],
)  # fmt: skip
def test_any_other_content_is_refused(change: dict[str, Any]) -> None:
    found = json.loads(SNAPSHOT.to_json()) | change
    with pytest.raises(SnapshotError):
        parse(json.dumps(found, sort_keys=True, separators=(",", ":")).encode())


@pytest.mark.parametrize("field", sorted(json.loads(SNAPSHOT.to_json())))
def test_every_field_is_needed(field: str) -> None:
    found = json.loads(SNAPSHOT.to_json())
    del found[field]
    with pytest.raises(SnapshotError):
        parse(json.dumps(found, sort_keys=True, separators=(",", ":")).encode())


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"{}", b"\xff", b"[" * 100_000, b"1" * (MAX_BYTES + 1)])
def test_bytes_that_are_none_are_refused(data: bytes) -> None:
    with pytest.raises(SnapshotError):
        parse(data)


@given(position=st.integers(0, len(SNAPSHOT.to_json()) - 1), value=st.integers(0, 255))
def test_a_changed_byte_is_seen(position: int, value: int) -> None:
    data = bytearray(SNAPSHOT.to_json())
    if data[position] == value:
        return
    data[position] = value
    with pytest.raises(SnapshotError):
        parse(bytes(data))


@pytest.mark.parametrize(
    "change",
    [
        {"scope": "tenant"}, {"user": None}, {"user": "a@b.c"}, {"period": "week"}, {"start": DAY[1]},
        {"end": DAY[1] + timedelta(days=1)}, {"start": DAY[0].replace(tzinfo=None)}, {"period": "month"},
        {"measure": "usd"}, {"limit": Decimal(-1)}, {"limit": Decimal("NaN")}, {"limit": Decimal(10) ** 18},
        {"used": Decimal("1e-21")}, {"warn_at": Decimal(0)}, {"warn_at": Decimal("1.1")}, {"unpriced_tokens": -1},
        {"measure": "turns"}, {"unpriced_limit_tokens": -1},
    ],
)  # fmt: skip
def test_a_budget_that_makes_no_sense_cannot_be_made(change: dict[str, Any]) -> None:
    with pytest.raises(SnapshotError):
        replace(BUDGET, **change)


@pytest.mark.parametrize(
    "ranges", [((0, 1),), ((2, 1),), ((1, 2), (2, 3)), ((1, 2), (3, 4)), ((5, 6), (1, 2)), ((1, 10**10),)]
)
def test_ranges_ascend_and_stand_apart(ranges: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(SnapshotError):
        Counted(device="0" * 32, epoch="a" * 16, ranges=ranges)


def test_one_epoch_stands_once() -> None:
    with pytest.raises(SnapshotError):
        replace(SNAPSHOT, counted=(COUNTED, COUNTED))


@given(st.datetimes(datetime(2001, 1, 1), datetime(2199, 12, 31), timezones=st.just(UTC)))  # noqa: DTZ001
def test_periods_hold_their_moment_and_touch(moment: datetime) -> None:
    for period in ("day", "month"):
        start, end = period_of(period, moment)
        assert start <= moment < end
        assert period_of(period, end)[0] == end
        assert period_of(period, end - timedelta(microseconds=1)) == (start, end)
