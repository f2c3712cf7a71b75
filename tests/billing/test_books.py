"""Books grow and are never changed; what is written reads back exactly; what does not fit is refused by name."""

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.billing import books
from pipelines.billing.books import BookError, parsed, written

NOW = datetime(2026, 11, 20, tzinfo=UTC)
FX = {
    "fx_rate_id": "1", "currency_from": "USD", "currency_to": "EUR", "source": "ecb", "rate": Decimal("0.8612345678"),
    "valid_from": date(2026, 1, 1), "recorded_at": NOW,
}  # fmt: skip


@given(st.integers(-(10**18) + 1, 10**18 - 1))
def test_a_price_reads_back_as_it_was_written(nanos: int) -> None:
    price = Decimal(nanos).scaleb(-9)
    assert parsed("price", written(price)) == price


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_time_reads_back_as_it_was_written(instant: datetime) -> None:
    assert parsed("timestamp", written(instant)) == instant


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("price", "1e-6"), ("price", "0.0000000001"), ("price", "NaN"), ("price", "1,5"), ("price", " 1"),
        ("rate", "123456789"), ("timestamp", "2026-01-01T00:00:00"), ("timestamp", "2026-01-01T00:00:00+01:00"),
        ("bool", "yes"), ("date", "1.1.2026"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(kind: books.Type, text: str) -> None:
    with pytest.raises((ValueError, KeyError)):
        parsed(kind, text)


def test_appending_leaves_every_byte_before_it(tmp_path: Path) -> None:
    books.append(books.FX_RATES, tmp_path, [FX])
    before = (tmp_path / "fx_rates.csv").read_bytes()
    books.append(books.FX_RATES, tmp_path, [FX | {"fx_rate_id": "2"}])
    assert (tmp_path / "fx_rates.csv").read_bytes().startswith(before)
    assert [row["rate"] for row in books.read(books.FX_RATES, [tmp_path])] == [FX["rate"]] * 2


def test_a_site_adds_to_the_shipped_book(tmp_path: Path) -> None:
    shipped, mine = tmp_path / "shipped", tmp_path / "mine"
    books.append(books.FX_RATES, shipped, [FX])
    books.append(books.FX_RATES, mine, [FX | {"fx_rate_id": "2"}])
    assert len(books.read(books.FX_RATES, [shipped, mine, tmp_path / "absent"])) == 2
    books.append(books.FX_RATES, mine, [FX])
    with pytest.raises(BookError, match=r"line 3: fx_rate_id stands in .*shipped"):
        books.read(books.FX_RATES, [shipped, mine])


def test_a_bad_row_is_named(tmp_path: Path) -> None:
    books.append(books.FX_RATES, tmp_path, [FX])
    path = tmp_path / "fx_rates.csv"
    good = path.read_text("utf-8")
    for text, said in (
        (good.replace("0.86", "0,86"), "10 cells, not 9"),
        (good.replace("0.8612345678", "0.86123456789"), "rate is"),
        (good.replace("EUR", ""), "currency_to is empty"),
        (good.replace("currency_to", "to"), "the first line must be"),
    ):
        path.write_text(text, "utf-8")
        with pytest.raises(BookError, match=said):
            books.read(books.FX_RATES, [tmp_path])


def test_an_account_of_a_zone_that_there_is_not_is_refused(tmp_path: Path) -> None:
    """Usage reports have days in that zone: a name that nothing knows must not wait for the build."""
    account = {
        "billing_account_id": "A", "tenant_id": "acme", "name": "Acme", "currency": "USD",
        "reporting_timezone": "Europe/Berlin", "charged_by": "tokens", "recorded_at": NOW,
    }  # fmt: skip
    books.append(books.ACCOUNTS, tmp_path, [account])
    assert len(books.read(books.ACCOUNTS, [tmp_path])) == 1
    books.append(books.ACCOUNTS, tmp_path, [account | {"tenant_id": "bolt", "reporting_timezone": "Berlin"}])
    with pytest.raises(BookError, match=r"line 3: reporting_timezone is 'Berlin'.*Europe/Berlin"):
        books.read(books.ACCOUNTS, [tmp_path])


def test_the_books_are_loaded_whole_or_not_at_all(tmp_path: Path) -> None:
    """The newest instant of any book is what rating knows; a bad book changes nothing in the warehouse."""
    books.append(books.FX_RATES, tmp_path, [FX])
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        assert books.load(connection, [tmp_path])["fx_rates"] == 1
        assert connection.execute("select known_at from billing.knowledge").fetchall() == [(NOW,)]
        kinds = dict(
            connection.execute(
                "select column_name, data_type from information_schema.columns where table_name = 'price_book'"
            ).fetchall()
        )
        assert kinds["unit_price"] == "DECIMAL(18,9)", "M1"
        (tmp_path / "fx_rates.csv").write_text("nothing\n", "utf-8")
        with pytest.raises(BookError):
            books.load(connection, [tmp_path])
        assert connection.execute("select count(*) from billing.fx_rates").fetchall() == [(1,)]
