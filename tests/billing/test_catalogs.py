"""Catalogs are read as data: dates, tiers, hours and batch prices become sheets; numbers never pass through a float."""

import hashlib
import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from pipelines.billing import books, catalogs
from pipelines.billing.prices import INPUT_RATE, PriceError, Sheet, check, entries

AT = datetime(2026, 11, 20, tzinfo=UTC)


def prices(sheet: Sheet, component: str) -> dict[tuple[int, int, int], Decimal]:
    """Price by threshold, weekdays and first second."""
    return {
        (p.context_tier_min, p.dow_mask, p.tod_from): p.unit_price for p in sheet.prices if p.component == component
    }


def litellm(folder: Path, **stated: object) -> list[Sheet]:
    path = folder / "map.json"
    text = json.dumps({"m": stated}).replace('"@', "").replace('@"', "")
    path.write_text(text, "utf-8")
    sheets = catalogs.litellm(path, {("p", "m"): "m"}, version="9", as_of=AT)
    for sheet in sheets:
        check(sheet)
        assert sheet.source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    return sheets


def test_numbers_are_read_from_the_text(tmp_path: Path) -> None:
    (sheet,) = litellm(tmp_path, input_cost_per_token="@3.625e-09@", output_cost_per_token="@1e-06@")
    assert prices(sheet, "input_uncached") == {(0, 127, 0): Decimal("0.003625")}
    assert {p.note for p in sheet.prices if p.component.startswith("cache")} == {INPUT_RATE}


def test_tiers_begin_one_token_after_their_threshold(tmp_path: Path) -> None:
    standard, batch = litellm(
        tmp_path, input_cost_per_token="@5e-06@", input_cost_per_token_above_272k_tokens="@1e-05@",
        output_cost_per_token="@3e-05@", input_cost_per_token_batches="@2.5e-06@",
        output_cost_per_token_batches="@1.5e-05@", cache_creation_input_token_cost="@0.0@",
    )  # fmt: skip
    assert prices(standard, "input_uncached") == {(0, 127, 0): 5, (272_001, 127, 0): 10}
    assert (batch.is_batch, prices(batch, "output")) == (True, {(0, 127, 0): 15})


def test_off_peak_hours_and_weekends(tmp_path: Path) -> None:
    (sheet,) = litellm(
        tmp_path, input_cost_per_token="@2e-06@", output_cost_per_token="@4e-06@",
        off_peak_pricing={
            "input_cost_per_token": "@1e-06@", "output_cost_per_token": "@2e-06@",
            "windows": [
                {"hours_utc": ["00:00-01:00", "10:00-00:00"], "weekdays": [1, 2, 3, 4, 5]},
                {"hours_utc": "00:00-00:00", "weekdays": [6, 7]},
            ],
        },
    )  # fmt: skip
    assert prices(sheet, "input_uncached") == {(0, 31, 0): 1, (0, 31, 3600): 2, (0, 31, 36000): 1, (0, 96, 0): 1}


def test_a_model_that_is_not_there_is_said(tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    path.write_text("{}", "utf-8")
    with pytest.raises(PriceError, match="has no model"):
        catalogs.litellm(path, {("p", "m"): "m"}, version="9", as_of=AT)


def test_an_operators_file_becomes_one_sheet_for_each_offer_and_time(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    head = "provider_name,model,component,unit_price,valid_from,valid_to,is_free\n"
    path.write_text(
        head + "hive,queen,input_uncached,0.5,2026-01-01T00:00:00Z,2026-02-01T00:00:00Z,\n"
        "hive,queen,output,2,2026-01-01T00:00:00Z,2026-02-01T00:00:00Z,false\n"
        "hive,queen,input_uncached,0,2026-02-01T00:00:00Z,,true\n",
        "utf-8",
    )
    january, later = catalogs.operator(path)
    assert (len(january.prices), january.valid_to, later.prices[0].is_free) == (2, later.valid_from, True)
    path.write_text(head + "hive,queen,output,1e3,2026-01-01T00:00:00Z,,\n", "utf-8")
    with pytest.raises(PriceError, match="line 2"):
        catalogs.operator(path)
    path.write_text(head.replace("unit_price", "price"), "utf-8")
    with pytest.raises(PriceError, match="lacks the columns unit_price"):
        catalogs.operator(path)


def test_the_first_book_is_what_the_pinned_catalog_says() -> None:
    """The committed rows of genai-prices are reproduced, sheet by sheet, from the release in the lock file."""
    pytest.importorskip("genai_prices")
    read = catalogs.genai_prices(catalogs.names("genai-prices", [books.SHIPPED], catalogs.genai_listed()))
    book = {e.sheet.sheet_id for e in entries([books.SHIPPED]) if e.sheet.source.name == "genai-prices"}
    assert {sheet.sheet_id for sheet in read} == book
    opus = [s for s in read if s.model == "claude-opus-4-6" and s.provider_name == "anthropic" and not s.is_batch]
    assert [s.valid_from for s in opus] == [catalogs.BEGINNING, datetime(2026, 3, 13, tzinfo=UTC)]
    assert prices(opus[0], "output") == {(0, 127, 0): 25, (200_001, 127, 0): Decimal("37.5")}
    assert prices(opus[1], "output") == {(0, 127, 0): 25}
