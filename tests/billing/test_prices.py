"""Which sheet counts when, as known when; who may decide what; when two sources agree."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines import cli
from pipelines.billing import books, catalogs
from pipelines.billing.prices import (
    INPUT_RATE,
    Price,
    PriceError,
    Sheet,
    Source,
    agree,
    check,
    contradictions,
    decide,
    differences,
    entries,
    in_force,
    propose,
    quorum,
    unopposed,
)

DAY0 = datetime(2026, 1, 1, tzinfo=UTC)
OFFER = ("p", "m", "standard", False)


def day(number: int) -> datetime:
    return DAY0 + timedelta(days=number)


def sheet(given: str = "1", output: str = "5", *more: Price, source: str = "a", **given_more: Any) -> Sheet:
    prices = (
        Price(component="input_uncached", unit_price=Decimal(given)),
        Price(component="output", unit_price=Decimal(output)),
        *more,
    )
    fields: dict[str, Any] = {"valid_from": DAY0, "model": "m"} | given_more
    return Sheet(provider_name="p", prices=prices, source=Source(name=source, version="1", sha256="0" * 64), **fields)


def approve(folder: Path, one: Sheet, now: datetime) -> None:
    propose([folder], [one], now=now)
    decide([folder], [one.sheet_id], "approve", by="finance", reason="r", now=now)


@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.one_of(st.none(), st.integers(1, 5)), st.booleans()), min_size=1, max_size=7
    )
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_at_every_instant_at_most_one_sheet_counts(
    tmp_path_factory: Any, steps: list[tuple[int, int | None, bool]]
) -> None:
    """R1, R4: the sheet decided last of those that cover an instant; nothing known later changes what was known."""
    folder = tmp_path_factory.mktemp("book")
    decided: list[tuple[datetime, Sheet]] = []
    for number, (start, length, is_approved) in enumerate(steps):
        one = sheet(str(number + 1), valid_from=day(start), valid_to=None if length is None else day(start + length))
        if one.sheet_id not in {e.sheet.sheet_id for e in entries([folder])}:
            books.append(books.PRICES, folder, one.rows(day(100 + number)))
            if is_approved:
                decide([folder], [one.sheet_id], "approve", by="f", reason="r", now=day(100 + number))
                decided.append((day(100 + number), one))
    book = entries([folder])
    for instant in (day(n) - timedelta(microseconds=1 - m) for n in range(16) for m in (0, 1)):
        for known_at in (day(100 + number) for number in range(len(steps))):
            covering = [one for at, one in decided if at <= known_at and one.covers(instant)]
            found = in_force(book, as_of=instant, known_at=known_at).get(OFFER)
            assert (found.sheet if found else None) == (covering[-1] if covering else None)


def test_an_approval_may_be_taken_back(tmp_path: Path) -> None:
    one = sheet()
    approve(tmp_path, one, day(1))
    decide([tmp_path], [one.sheet_id[:8]], "reject", by="f", reason="a slip", now=day(2))
    book = entries([tmp_path])
    assert OFFER in in_force(book, as_of=day(5), known_at=day(1))
    assert OFFER not in in_force(book, as_of=day(5), known_at=day(2))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (sheet("0"), "free is said by is_free"),
        (sheet("1", "5", Price(component="output", unit_price=Decimal(6))), "two prices"),
        (sheet("1", "5", Price(component="input", unit_price=Decimal(6))), "is no component"),
        (sheet("1", "5", Price(component="cache_read", unit_price=Decimal(1), context_tier_min=9)), "none below"),
        (sheet("1", "5", Price(component="cache_read", unit_price=Decimal(1), tod_to=9)), "no price at second 9"),
        (sheet("1", "5", Price(component="cache_read", unit_price=Decimal(1), dow_mask=31)), "no price at second 0"),
        (sheet("0.0000000001"), "nine decimals"),
        (sheet(valid_to=DAY0), "not after"),
    ],
)
def test_a_sheet_has_no_gap_no_overlap_and_no_silent_zero(wrong: Sheet, said: str) -> None:
    """R1, R2."""
    with pytest.raises(PriceError, match=said):
        check(wrong)


def test_two_sheets_of_one_time_cannot_be_approved_at_once(tmp_path: Path) -> None:
    one, two = sheet("1"), sheet("2", source="b")
    propose([tmp_path], [one, two], now=DAY0)
    with pytest.raises(PriceError, match="cannot be approved at once"):
        decide([tmp_path], [one.sheet_id, two.sheet_id], "approve", by="f", reason="r", now=day(1))
    with pytest.raises(PriceError, match="needs a name and a reason"):
        decide([tmp_path], [one.sheet_id], "approve", by="f", reason=" ", now=day(1))
    with pytest.raises(PriceError, match="names 2 sheets"):
        decide([tmp_path], [""], "approve", by="f", reason="r", now=day(1))


def test_two_sources_that_agree_are_a_quorum(tmp_path: Path) -> None:
    read = Price(component="cache_read", unit_price=Decimal("0.1"))
    derived = Price(component="cache_read", unit_price=Decimal(1), note=INPUT_RATE)
    fuller, second = sheet("1", "5", read), sheet("1", "5", derived, source="b", valid_from=day(9))
    assert agree(fuller, second), "a price that a source does not state contradicts nothing"
    propose([tmp_path], [fuller, second], now=day(9))
    approved, against = quorum([tmp_path], as_of=day(9), now=day(9))
    assert (approved, against) == ([fuller], [])
    assert [e.decisions[-1][1] for e in entries([tmp_path])] == ["approve", "corroborate"]
    assert quorum([tmp_path], as_of=day(9), now=day(10)) == ([], []), "deciding twice changes nothing"


def test_sources_that_contradict_each_other_wait_for_a_person(tmp_path: Path) -> None:
    one, two = sheet("1", "5"), sheet("1", "7.5", source="b")
    propose([tmp_path], [one, two], now=day(1))
    approved, against = quorum([tmp_path], as_of=day(1), now=day(1))
    assert approved == []
    assert [(d.component, d.context_tier_min, d.price, d.other_price) for d in against] == [
        ("output", 0, Decimal(5), Decimal("7.5"))
    ]
    assert unopposed([tmp_path], as_of=day(1)) == []
    assert in_force(entries([tmp_path]), as_of=day(1), known_at=day(9)) == {}


def test_a_tier_of_one_source_alone_is_what_it_may_cost_at_most(tmp_path: Path) -> None:
    """Nobody can prove a tier from a turn: both sources charge the same, and the sheet that has the tier shows it."""
    tier = Price(component="output", unit_price=Decimal("7.5"), context_tier_min=200_001)
    one, two = sheet("1", "5", source="b"), sheet("1", "5", tier)
    propose([tmp_path], [one, two], now=day(1))
    approved, against = quorum([tmp_path], as_of=day(1), now=day(1))
    assert (approved, against) == ([two], [])
    assert [d.context_tier_min for d in contradictions(entries([tmp_path]), as_of=day(1))] == [200_001]


def test_an_operators_word_is_not_replaced_by_a_quorum(tmp_path: Path) -> None:
    approve(tmp_path, sheet("9", "9", source="operator"), day(1))
    propose([tmp_path], [sheet("1"), sheet("1", source="b")], now=day(2))
    assert quorum([tmp_path], as_of=day(2), now=day(2))[0] == []


def test_a_catalog_that_repeats_itself_proposes_nothing(tmp_path: Path) -> None:
    """R4: a newer release, or another source, that states the approved prices would only rename old lines."""
    approve(tmp_path, sheet(), day(1))
    again = sheet(valid_from=day(30), source="c")
    assert propose([tmp_path], [sheet(), again], now=day(2)) == []
    assert propose([tmp_path], [sheet("2", valid_from=day(30), source="c")], now=day(2)) != []


def test_hours_are_compared_by_what_they_charge() -> None:
    def hours(mask: int, begin: int, end: int, price: str) -> list[Price]:
        return [
            Price(component=name, unit_price=Decimal(price), dow_mask=mask, tod_from=begin, tod_to=end)
            for name in ("input_uncached", "output")
        ]

    def of(*parts: list[Price]) -> Sheet:
        source = Source(name=str(len(parts)), version="1", sha256="0")
        every = tuple(price for part in parts for price in part)
        return Sheet(provider_name="p", model="m", prices=every, valid_from=DAY0, source=source)

    daily = of(hours(127, 0, 3600, "1"), hours(127, 3600, 86400, "2"))
    split = of(hours(31, 0, 3600, "1"), hours(96, 0, 3600, "1"), hours(127, 3600, 86400, "2"))
    weekend = of(hours(127, 0, 3600, "1"), hours(31, 3600, 86400, "2"), hours(96, 3600, 86400, "1"))
    assert differences(daily, split) == []
    assert {(d.dow_mask, d.tod_from, d.tod_to) for d in differences(daily, weekend)} == {(96, 3600, 86400)}


def test_the_shipped_book_stands() -> None:
    """R1 over the first book: every sheet is whole, contested offers are undecided, each row says where it is from."""
    book = entries([books.SHIPPED])
    for entry in book:
        check(entry.sheet)
    as_of = datetime(2026, 11, 28, tzinfo=UTC)
    contested = {found.sheet.offer for found in contradictions(book, as_of=as_of) if found.context_tier_min == 0}
    current = in_force(book, as_of=as_of, known_at=as_of)
    assert len(current) >= 50
    assert contested
    assert contested & current.keys() == set()
    rows = books.read(books.PRICES, [books.SHIPPED])
    assert {row["source"] for row in rows} == {"genai-prices", "litellm", "operator"}
    assert all(len(row["source_sha256"]) == 64 for row in rows)
    aliases = books.read(books.ALIASES, [books.SHIPPED])
    assert "hive/queen" in {row["model"] for row in aliases}
    prefixes = {row["provider_name"] for row in books.read(books.PREFIXES, [books.SHIPPED])}
    known = {(row["provider_name"], row["price_model"]) for row in aliases}
    unled = {offer[:2] for offer in current if offer[:2] not in known and offer[0] not in prefixes}
    assert unled == set(), "a price that no model name leads to"
    assert books.read(catalogs.NAMES, [books.SHIPPED])


def test_finance_says_what_a_name_means(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    """By a command, of a model that has a price; a name that nobody sells is refused with the nearest one."""
    monkeypatch.setenv("APIARY_HOME", str(tmp_path))
    words = ["prices", "alias", "sonnet", "--by", "grace", "--approved-by", "rosa", "--reason", "as of the release"]
    assert cli.main([*words, "--means", "anthropic/claude-sonnet-4-55"]) == 2
    assert "did you mean 'anthropic/claude-sonnet-4-5'?" in capsys.readouterr().err
    assert not (tmp_path / "billing").exists()
    assert cli.main([*words, "--means", "anthropic/claude-sonnet-4-5", "--from", "2025-09-29"]) == 0
    (row,) = books.read(books.ALIASES, [tmp_path / "billing"])
    said = [row[name] for name in ("model", "provider_name", "price_model", "valid_from", "recorded_by", "approved_by")]
    assert said == ["sonnet", "anthropic", "claude-sonnet-4-5", date(2025, 9, 29), "grace", "rosa"]
