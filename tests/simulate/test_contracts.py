"""What the demo signs for its tenants is what finance's books take."""

from datetime import UTC, date, datetime
from pathlib import Path

from pipelines.billing import books
from pipelines.commands.demo import sign_books
from pipelines.home import Home
from pipelines.simulate.fleet import demo_fleet


def test_the_books_take_what_the_demo_signs_and_keep_what_finance_signed(tmp_path: Path) -> None:
    fleet = demo_fleet(last_day=date(2026, 11, 18))
    home = Home(tmp_path)
    now = datetime(2026, 11, 20, tzinfo=UTC)
    sign_books(home, fleet, now=now)
    folders = [books.SHIPPED, home.books]
    found = {book.name: books.read(book, [home.books]) for book in books.BOOKS}
    assert {row["tenant_id"] for row in found["billing_accounts"]} == {device.tenant for device in fleet}
    assert {row["billing_account_id"] for name in ("contract_rates", "plan_items", "seats", "credit_grants")
            for row in found[name]} <= {row["billing_account_id"] for row in found["billing_accounts"]}  # fmt: skip
    signed = {(row["model"], row["component"]) for row in found["price_book"]}
    assert signed >= {("platform", "seat_month"), ("platform", "colony_day"), ("llama3.1:8b", "output")}
    assert {row["decision"] for row in found["price_decisions"]} == {"approve"}
    sold = {(row["provider_name"], row["model"]) for row in books.read(books.PRICES, folders)}
    assert {(row["provider_name"], row["price_model"]) for row in found["model_aliases"]} <= sold
    assert all(books.read(book, folders) for book in (books.PRICES, books.ACCOUNTS, books.PLAN_ITEMS, books.SEATS))
    before = {path.name: path.read_bytes() for path in home.books.iterdir()}
    sign_books(home, fleet, now=now)
    assert {path.name: path.read_bytes() for path in home.books.iterdir()} == before
