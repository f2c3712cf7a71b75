"""The price of a turn in a base install is what a second calculation says from the same book."""

import random
import shutil
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from pipelines.billing import books
from pipelines.list_prices import FIRST_BOOKS, ListPrices, Usage
from tests.billing import oracle

KNOWN_AT = datetime(2030, 1, 1, tzinfo=UTC)
MILLION = Decimal(1_000_000)


@pytest.fixture(scope="module")
def shipped() -> dict[str, list[dict[str, Any]]]:
    found = (books.PRICES, books.DECISIONS, books.ALIASES, books.PREFIXES)
    return {book.name: books.read(book, [FIRST_BOOKS]) for book in found}


def only(model: str, shipped: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """The rows of the book that may speak of a model: the second calculation looks at all of them for each turn."""
    names = {model, *(model.split("/", n)[-1] for n in range(1, 4))}
    names |= {row["price_model"] for row in shipped["model_aliases"] if row["model"] == model}
    prices = [row for row in shipped["price_book"] if row["model"] in names]
    sheets = {row["sheet_id"] for row in prices}
    decisions = [row for row in shipped["price_decisions"] if row["sheet_id"] in sheets]
    return shipped | {"price_book": prices, "price_decisions": decisions}


def expected(usage: Usage, found: dict[str, list[dict[str, Any]]]) -> Decimal | None:
    turn = {
        "model": usage.model, "occurred_at": usage.occurred_at, "input_tokens": usage.input_tokens,
        "reported_input_tokens": usage.input_tokens, "cache_read_input_tokens": usage.cache_read,
        "cache_write_input_tokens": usage.cache_write, "cache_write_5m_input_tokens": usage.cache_write_5m,
        "cache_write_1h_input_tokens": usage.cache_write_1h, "output_tokens": usage.output_tokens,
        "is_convention_unknown": False, "service_tier": usage.service_tier, "speed": usage.speed,
    }  # fmt: skip
    costs = []
    for component, (quantity, _) in oracle.components(turn).items():
        rows = oracle.prices_at(turn, component, found, KNOWN_AT)
        if not rows and quantity:
            return None
        costs += [quantity * rows[0]["unit_price"] / MILLION] if rows else []
    return sum(costs, Decimal(0)) if costs else None


def test_every_turn_costs_what_a_second_calculation_says(shipped: dict[str, list[dict[str, Any]]]) -> None:
    random_, prices = random.Random(8), ListPrices()
    offers = sorted({(row["provider_name"], row["model"]) for row in shipped["price_book"]})
    prefixes = {(row["provider_name"], row["prefix"]) for row in shipped["model_prefixes"]}
    names = [
        f"{prefix}/{model}" if prefix else model
        for provider, model in random_.sample(offers, 60)
        for name, prefix in sorted(prefixes, key=str)
        if name == provider
    ]
    names = [*random_.sample(names, 40), "claude-opus-5", "claude-sonnet-5", "gemini/gemini-3-flash-preview", "unheard"]
    names += random_.sample([row["model"] for row in shipped["model_aliases"]], 30)
    outcomes = set()
    for name in names:
        found = only(name, shipped)
        for _ in range(3):
            five, hour, other, read, uncached, output = (random_.choice((0, 1, 999, 250_000)) for _ in range(6))
            usage = Usage(
                name, datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=random_.randrange(365 * 86_400)),
                five + hour + other + read + uncached, read, five + hour + other, five, hour, output,
                random_.choice((None, None, "standard", "batch", "priority")), random_.choice((None, None, "fast")),
            )  # fmt: skip
            cost = prices.cost(usage)
            assert cost == expected(usage, found), usage
            outcomes.add(cost is None)
    assert outcomes == {True, False}


def test_a_floating_name_has_the_price_of_what_it_meant_that_day(tmp_path: Path) -> None:
    for path in FIRST_BOOKS.iterdir():
        shutil.copy(path, tmp_path)
    (tmp_path / "model_aliases.csv").write_text(
        "alias_id,model,provider_name,price_model,note,recorded_at,valid_from,recorded_by,approved_by\n"
        "a,family,anthropic,claude-opus-4-0,,2026-11-20T00:00:00Z,2026-02-01,,\n"
        "b,family,anthropic,claude-sonnet-4-0,,2026-11-20T00:00:00Z,2026-03-01,,\n"
    )
    prices = ListPrices(tmp_path)

    def cost(model: str, day: str) -> Decimal | None:
        at = datetime.fromisoformat(f"{day}T23:59:59+00:00")
        return prices.cost(Usage(model, at, input_tokens=1_000_000, output_tokens=0))

    opus, sonnet = cost("claude-opus-4-0", "2026-02-01"), cost("claude-sonnet-4-0", "2026-02-01")
    assert None not in (opus, sonnet)
    days = ("2026-01-31", "2026-02-01", "2026-02-28", "2026-03-01")
    assert [cost("family", day) for day in days] == [None, opus, opus, sonnet]
