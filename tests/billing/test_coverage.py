"""How much of a mixed fleet has a price out of the box, one decision for the rest, and prices that look mistaken."""

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pipelines.billing import books, catalogs, coverage, plausibility, prices
from pipelines.billing.prices import Price, PriceError, Sheet, Source
from pipelines.contract.vocabulary import is_public
from tests.billing.oracle import offer

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
LATER = datetime(2026, 12, 1, tzinfo=UTC)


def sheet(model: str, price: str, source: str = "a", **more: Any) -> Sheet:
    made = tuple(Price(component=name, unit_price=Decimal(price)) for name in ("input_uncached", "output"))
    return Sheet(
        provider_name="p", model=model, prices=made, valid_from=catalogs.BEGINNING,
        source=Source(name=source, version="1", sha256="0" * 64), **more,
    )  # fmt: skip


def publish(folder: Path, rows: list[tuple[str, str, int, bool]]) -> None:
    """Rated lines as far as coverage reads them: model, price model, tokens, whether they have a price."""
    (folder / "current").mkdir(parents=True)
    with duckdb.connect() as connection:
        connection.execute(
            "create table lines (model varchar, provider_name varchar, price_model varchar, component varchar,"
            " quantity bigint, contracted_unit_price decimal(18, 9), price_id varchar, usage_date date,"
            " currency varchar, low_cost decimal(38, 15), high_cost decimal(38, 15))"
        )
        for model, price_model, tokens, is_priced in rows:
            price, price_id = (1, "one") if is_priced else (None, None)
            bounds = (None, None) if model == "x/none" else (Decimal("0.01"), None if model == "x/torn" else 9)
            connection.execute(
                "insert into lines values (?, 'p', ?, 'output', ?, ?, ?, '2026-11-20', 'EUR', ?, ?)",
                [model, price_model, tokens, price, price_id, *bounds],
            )
        connection.execute(f"copy lines to '{folder}/current/fct_rated_lines.parquet'")
        connection.execute(
            f"copy (select 'one' as price_id, 'quorum' as approved_by) to '{folder}/current/dim_prices.parquet'"
        )


def test_what_is_used_and_unpriced_is_settled_by_one_decision(tmp_path: Path) -> None:
    signed, published = [tmp_path / "books"], tmp_path / "published"
    prices.propose(signed, [sheet("torn", "2"), sheet("torn", "3", "b"), sheet("lone", "5", "b")], now=NOW)
    publish(published, [("x/ok", "ok", 700, True), ("x/torn", "torn", 200, False), ("x/lone", "lone", 50, False),
                        ("x/none", "none", 50, False)])  # fmt: skip
    models = coverage.used(signed, published, now=NOW)
    assert [(one.model, one.status, one.tokens, one.unpriced_tokens) for one in models] == [
        ("x/ok", "agreed", 700, 0), ("x/torn", "contested", 200, 200), ("x/lone", "proposed", 50, 50),
        ("x/none", "missing", 50, 50),
    ]  # fmt: skip
    (torn,) = [one for one in models if one.model == "x/torn"]
    may_cost = {one.model: one.may_cost for one in models if one.may_cost}
    assert may_cost == {"x/lone": {"EUR": (Decimal("0.01"), Decimal(9))}, "x/torn": {"EUR": (Decimal("0.01"), None)}}
    assert torn.at_stake() == {"a": (Decimal("0.0004"),) * 2, "b": (Decimal("0.0006"),) * 2}
    settled = coverage.settle(
        signed, models, prefer="lowest", by="ada", reason="month end", now=LATER, is_accepted=False
    )
    assert {(one.model, one.source.name) for one in settled} == {("torn", "a"), ("lone", "b")}
    again = coverage.used(signed, published, now=LATER)
    assert coverage.settle(signed, again, prefer="a", by="ada", reason="r", now=LATER, is_accepted=False) == []


@pytest.mark.parametrize(("price", "ratio"), [("1500000", "500000"), ("0.2", "0.067"), ("30", None), ("0.3", None)])
def test_prices_without_sense_need_a_word(tmp_path: Path, price: str, ratio: str | None) -> None:
    """1,500,000 USD per million tokens: somebody mistook the unit."""
    signed = [tmp_path]
    prices.propose(signed, [old := sheet("m", "3")], now=NOW)
    prices.decide(signed, [old.sheet_id], "approve", by="f", reason="r", now=NOW)
    prices.propose(signed, [new := sheet("m", price, "operator")], now=LATER)
    given = {"by": "ada", "reason": "their page", "now": LATER}
    found = plausibility.doubts(signed, [new], now=LATER)
    assert {str(doubt.ratio.normalize()) for doubt in found if "last price" in doubt.compared_with} == (
        {str(Decimal(ratio).normalize())} if ratio else set()
    )
    if ratio:
        with pytest.raises(PriceError, match=f"input_uncached costs {price} USD per million, {ratio} times its last"):
            plausibility.approve(signed, [new.sheet_id], **given, is_accepted=False)
    assert plausibility.approve(signed, [new.sheet_id], **given, is_accepted=bool(ratio)) == [new]


def test_nearly_every_public_name_that_a_catalog_sells_has_a_price() -> None:
    """Of the names that travel in clear and that a catalog has for text, 98 % have a price out of the box."""
    signed = {book.name: books.read(book, [books.SHIPPED]) for book in (books.PREFIXES, books.PRICES, books.ALIASES)}
    book = prices.entries([books.SHIPPED])
    sold = {entry.sheet.offer[:2] for entry in book}
    priced = {name[:2] for name in prices.in_force(book, as_of=NOW, known_at=NOW) if not name[3]}
    prefixes: dict[str, list[str]] = {}
    for row in signed["model_prefixes"]:
        prefixes.setdefault(row["provider_name"], []).append(f"{row['prefix']}/" if row["prefix"] else "")
    meant: dict[str, set[tuple[str, str]]] = {}
    for provider, model in sold:
        for prefix in prefixes.get(provider, ()):
            meant.setdefault(prefix + model, set()).add((provider, model))
    for row in signed["model_aliases"]:
        meant[row["model"]] = {(row["provider_name"], row["price_model"])}
    public = {name: offers for name, offers in meant.items() if is_public("models", name)}
    named = sum(1 for offers in public.values() if len(offers) == 1 and offers <= priced)
    assert len(public) > 8_000
    assert named / len(public) >= 0.98, f"{named} of {len(public)}"
    few = {name: signed[name] for name in ("model_prefixes", "model_aliases")}
    haiku = [row for row in signed["price_book"] if row["model"].startswith("claude-haiku-4-5")]
    found = offer("anthropic/claude-haiku-4-5-20251001", few | {"price_book": haiku}, NOW, NOW.date())
    assert found is not None
    assert offer("anthropic/claude-haiku-4-5-20251002", few | {"price_book": haiku}, NOW, NOW.date()) is None, (
        "no relative"
    )
