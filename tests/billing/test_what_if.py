"""A scenario over published usage: nothing changed differs by nothing; each change is the sum worked by hand."""

from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from pipelines.billing import books
from pipelines.billing.prices import Price, Sheet, Source, decide, propose
from pipelines.billing.what_if import Scenario, WhatIfError, by_account, what_if
from pipelines.warehouse.publish import publish
from tests.warehouse import Warehouse

D = Decimal
Ask = Callable[[Scenario], tuple[Decimal | None, ...]]
START = datetime(2026, 1, 1, tzinfo=UTC)
MARCH = {"first_day": date(2026, 3, 1), "end_day": date(2026, 4, 1)}


def write_books(folder: Path) -> None:
    source = Source(name="operator", version="1", sha256="0" * 64)
    named = ("input_uncached", "cache_write_5m", "cache_write_1h", "output")
    for number, (model, is_batch, amounts) in enumerate(
        [("a", False, ("4", "5", "8", "20")), ("a", True, ("2", "2.5", "4", "10")), ("b", False, ("1", "1", "1", "2"))]
    ):
        prices = tuple(Price(component=n, unit_price=D(p)) for n, p in zip(named, amounts, strict=True))
        sheet = Sheet(provider_name="p", model=model, is_batch=is_batch, prices=prices, valid_from=START, source=source)
        propose([folder], [sheet], now=START.replace(second=number))
        decide([folder], [sheet.sheet_id], "approve", by="f", reason="r", now=START.replace(second=number))
    alias = {"provider_name": "p", "note": None, "recorded_at": START}
    books.append(books.ALIASES, folder, [alias | {"alias_id": m, "model": m, "price_model": m} for m in ("a", "b")])


@pytest.fixture
def ask(warehouse: Warehouse, tmp_path: Path) -> Ask:
    """Asks what a scenario makes of the month's usage of model `a`: actual cost, scenario's cost, difference.

    A million input tokens of which half written to the cache, and 100,000 output: 2 + 2.5 + 2 = 6.5."""
    folder, published = tmp_path / "books", tmp_path / "published"
    write_books(folder)
    with pytest.raises(WhatIfError, match="nothing is published"):
        what_if(published, [folder], tmp_path / "w", Scenario(), **MARCH)
    warehouse.sign(folder, shipped=False)
    turn = {
        "session_id": "s", "agent_role": "queen", "input_tokens": 10**6, "cache_write_input_tokens": 5 * 10**5,
        "output_tokens": 10**5, "time_basis": "utc",
    }  # fmt: skip
    warehouse.load(
        [
            (
                "llm_turns",
                turn | {"record_id": "1", "model": "a", "occurred_at": datetime(2026, 3, 31, 23, tzinfo=UTC)},
            ),
            ("llm_turns", turn | {"record_id": "2", "model": "a", "occurred_at": datetime(2026, 4, 1, tzinfo=UTC)}),
            ("llm_turns", turn | {"record_id": "3", "model": "x", "occurred_at": datetime(2026, 3, 9, tzinfo=UTC)}),
        ]
    )
    warehouse.run("--select", "+fct_rated_lines", "+dim_sessions")
    with warehouse.connect() as connection:
        publish(connection, published)

    def asked(scenario: Scenario) -> tuple[Decimal | None, ...]:
        rows = what_if(published, [folder], tmp_path / "w", scenario, **MARCH)
        mine = [row for row in rows if row["model"] == "a"]
        assert all(row["difference"] is None for row in rows if row["model"] == "x"), "unpriced stays unpriced"
        return tuple(sum(row[name] for row in mine) for name in ("actual_cost", "scenario_cost", "difference"))

    return asked


@pytest.mark.long  # dbt parses the project anew for each scenario
def test_each_change_is_the_sum_worked_by_hand(ask: Ask, tmp_path: Path) -> None:
    assert ask(Scenario(is_batch=True)) == (D("6.5"), D("3.25"), D("-3.25"))
    assert ask(Scenario(cache_ttl="1h")) == (D("6.5"), D("8"), D("1.5"))
    assert ask(Scenario(models={"a": "b"})) == (D("6.5"), D("1.2"), D("-5.3"))
    mine = tmp_path / "mine.csv"
    mine.write_text(
        "provider_name,model,component,unit_price,valid_from\n"
        + "".join(f"p,a,{n},10,2026-03-01T00:00:00Z\n" for n in ("input_uncached", "cache_write_5m", "output")),
        "utf-8",
    )
    assert ask(Scenario(book=mine)) == (D("6.5"), D("11"), D("4.5"))
    assert {path.name for path in (tmp_path / "w").iterdir()} >= {"rated_lines.parquet", "comparison.parquet"}


@pytest.mark.services
def test_nothing_changed_differs_by_nothing_and_a_preview_tells_it_of_each_account(ask: Ask, tmp_path: Path) -> None:
    assert ask(Scenario()) == (D("6.5"), D("6.5"), 0)
    folder, published = tmp_path / "books", tmp_path / "published"
    source = Source(name="operator", version="2", sha256="0" * 64)
    doubled = tuple(Price(component=n, unit_price=D(2)) for n in ("input_uncached", "cache_write_5m", "output"))
    proposed = [
        Sheet(provider_name="p", model="b", prices=doubled, valid_from=START, source=source),
        Sheet(provider_name="p", model="x", prices=doubled, valid_from=START, source=source),
    ]
    propose([folder], proposed, now=START.replace(minute=1))
    books.append(
        books.PREFIXES, folder, [{"prefix": None, "provider_name": "p", "recorded_at": START.replace(minute=1)}]
    )
    preview = Scenario(sheets=[sheet.sheet_id for sheet in proposed])
    (row,) = by_account(what_if(published, [folder], tmp_path / "w", preview, **MARCH))
    assert row == {
        "account": "UNATTRIBUTED", "currency": "USD", "tokens": 2_200_000, "newly_priced_tokens": 1_100_000,
        "unpriced_tokens": 0, "charged": D("6.5"), "would_be_charged": D("8.7"), "change": D("2.2"),
    }  # fmt: skip
    assert decisions_of(folder) == 3, "a preview decides nothing"


def decisions_of(folder: Path) -> int:
    return len(books.read(books.DECISIONS, [folder]))
