"""Price changes that really happened, each with the sums worked by hand: R4, R7 and R8 on the events of 2026.

One warehouse holds all of them and is rated three times: as known on 2026-08-05, as known at the end, and as batch.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from pipelines.billing import books
from pipelines.billing.prices import Price, Sheet, Source, decide, propose
from tests.warehouse import Warehouse

D = Decimal
SOURCE = Source(name="events", version="1", sha256="0" * 64)
START = datetime(2026, 1, 1, tzinfo=UTC)
THEN = datetime(2026, 8, 5, tzinfo=UTC)
Turns = list[tuple[str, dict[str, Any]]]
COLUMNS = (
    "record_id, sum(billed_cost), sum(low_cost), sum(high_cost), bool_or(is_tier_ambiguous),"
    " count(*) filter (where rating_status = 'unpriced')"
)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def flat(model: str, given: str, read: str, output: str, **more: Any) -> Sheet:
    """A sheet of three prices."""
    prices = (
        Price(component="input_uncached", unit_price=D(given)),
        Price(component="cache_read", unit_price=D(read)),
        Price(component="output", unit_price=D(output)),
    )
    return sheet(model, prices, **more)


def sheet(model: str, prices: tuple[Price, ...], *, start: str = "", **more: Any) -> Sheet:
    return Sheet(
        provider_name="p", model=model, prices=prices, source=SOURCE, valid_from=at(start) if start else START, **more
    )


def tiered(model: str, base: tuple[str, str], threshold: int, above: tuple[str, str], **more: Any) -> Sheet:
    """A sheet with a second price for requests of more than `threshold` input tokens."""
    names = ("input_uncached", "output")
    low = tuple(Price(component=n, unit_price=D(p)) for n, p in zip(names, base, strict=True))
    high = tuple(
        Price(component=n, unit_price=D(p), context_tier_min=threshold + 1) for n, p in zip(names, above, strict=True)
    )
    return sheet(model, low + high, **more)


def by_hour(model: str) -> Sheet:
    """The day price from 00:30 to 16:30 UTC, half of it at other hours."""
    marks = ((0, 1800, "0.135", "0.55"), (1800, 59400, "0.27", "1.1"), (59400, 86400, "0.135", "0.55"))
    return sheet(
        model,
        tuple(
            Price(component=name, unit_price=D(price), tod_from=begin, tod_to=end)
            for begin, end, given, output in marks
            for name, price in (("input_uncached", given), ("output", output))
        ),
    )


# The sheets, and when each was decided on.
DECIDED = [
    ("2026-01-01", tiered("claude-opus-4-6", ("5", "25"), 200_000, ("10", "37.5"))),
    ("2026-03-13", flat("claude-opus-4-6", "5", "0.5", "25", start="2026-03-13")),
    ("2026-01-01", tiered("claude-sonnet-4-5", ("3", "15"), 200_000, ("6", "22.5"))),
    ("2026-01-01", tiered("gpt-5.6-luna", ("1", "6"), 272_000, ("2", "9"))),
    ("2026-07-30", tiered("gpt-5.6-luna", ("0.2", "1.2"), 272_000, ("0.4", "1.8"), start="2026-07-30")),
    ("2026-01-01", flat("gpt-5.6-sol", "5", "0.5", "30")),
    ("2026-08-21", flat("gpt-5.6-sol", "4", "0.4", "20", start="2026-08-21")),
    ("2026-01-01", flat("claude-sonnet-5", "2", "0.2", "10")),
    ("2026-07-01", flat("claude-sonnet-5", "3", "0.3", "15", start="2026-09-01")),
    ("2026-08-10", flat("claude-sonnet-5", "2", "0.2", "10", start="2026-09-01")),
    ("2026-01-01", flat("claude-fable-5-1", "10", "0.25", "50")),
    ("2026-01-01", flat("claude-opus-5", "5", "0.5", "25")),
    ("2026-01-01", flat("claude-opus-5-5", "4", "0.2", "20")),
    ("2026-01-01", tiered("claude-haiku-5-5", ("0.1", "0.5"), 100_000, ("0.5", "2.5"))),
    ("2026-01-01", by_hour("deepseek-chat")),
    ("2026-01-01", flat("claude-opus-4-7", "5", "0.5", "25")),
    ("2026-01-01", flat("claude-opus-4-7", "2.5", "0.25", "12.5", is_batch=True)),
    ("2026-01-01", flat("claude-opus-4-7", "5.5", "0.55", "27.5", service_tier="us")),
    ("2026-01-01", flat("claude-opus-4-7", "30", "3", "150", service_tier="fast")),
    ("2026-01-01", flat("claude-haiku-3-5", "0.8", "0.08", "4")),
    ("2026-01-01", flat("claude-haiku-4-5", "1", "0.1", "5")),
]

# Turn, model, instant, input, of it read from the cache, output.
TURNS = [
    ("opus long, last microsecond with tiers", "claude-opus-4-6", "2026-03-12T23:59:59.999999", 300_000, 0, 1_000),
    ("opus long, flat", "claude-opus-4-6", "2026-03-13T00:00:00", 300_000, 0, 1_000),
    ("opus short, with tiers", "claude-opus-4-6", "2026-03-12T12:00:00", 150_000, 0, 1_000),
    ("sonnet 4.5 long", "claude-sonnet-4-5", "2026-03-20T12:00:00", 300_000, 0, 1_000),
    ("luna before", "gpt-5.6-luna", "2026-07-29T23:59:59.999999", 100_000, 0, 10_000),
    ("luna after", "gpt-5.6-luna", "2026-07-30T00:00:00", 100_000, 0, 10_000),
    ("luna long", "gpt-5.6-luna", "2026-07-30T00:00:00", 300_000, 0, 10_000),
    ("sol before", "gpt-5.6-sol", "2026-08-20T23:59:59.999999", 100_000, 60_000, 10_000),
    ("sol after", "gpt-5.6-sol", "2026-08-21T00:00:00", 100_000, 60_000, 10_000),
    ("sonnet 5 in september", "claude-sonnet-5", "2026-09-02T12:00:00", 1_000_000, 0, 100_000),
    ("sonnet 5 in august", "claude-sonnet-5", "2026-08-31T23:59:59.999999", 1_000_000, 0, 100_000),
    ("fable reads", "claude-fable-5-1", "2026-08-01T12:00:00", 100_000, 100_000, 0),
    ("opus 5 reads", "claude-opus-5", "2026-08-01T12:00:00", 100_000, 100_000, 0),
    ("opus 5.5 reads", "claude-opus-5-5", "2026-08-01T12:00:00", 100_000, 100_000, 0),
    ("opus 5.5 of another name", "claude-opus-5-5-fast", "2026-08-01T12:00:00", 100_000, 100_000, 0),
    ("haiku at its threshold", "claude-haiku-5-5", "2026-08-01T12:00:00", 100_000, 0, 0),
    ("haiku over it", "claude-haiku-5-5", "2026-08-01T12:00:00", 100_001, 0, 0),
    ("deepseek, night", "deepseek-chat", "2026-08-01T00:29:59.999999", 1_000_000, 0, 0),
    ("deepseek, first of the day", "deepseek-chat", "2026-08-01T00:30:00", 1_000_000, 0, 0),
    ("deepseek, last of the day", "deepseek-chat", "2026-08-01T16:29:59.999999", 1_000_000, 0, 0),
    ("deepseek, evening", "deepseek-chat", "2026-08-01T16:30:00", 1_000_000, 0, 0),
    ("opus 4.7", "claude-opus-4-7", "2026-10-20T12:00:00", 1_000_000, 400_000, 100_000),
    ("haiku 4.5", "claude-haiku-4-5", "2026-08-01T12:00:00", 1_000_000, 0, 1_000_000),
]


def write_books(folder: Path) -> None:
    """The book as it grew: each sheet proposed and approved on its day."""
    for number, (day, one) in enumerate(DECIDED):
        now = at(day).replace(microsecond=number)
        propose([folder], [one], now=now)
        decide([folder], [one.sheet_id], "approve", by="finance", reason="announced", now=now)
    models = {one.model for _, one in DECIDED}
    books.append(
        books.ALIASES,
        folder,
        [
            {"alias_id": m, "model": m, "provider_name": "p", "price_model": m, "note": None, "recorded_at": START}
            for m in sorted(models)
        ],
    )
    account = {
        "billing_account_id": "A", "tenant_id": "acme", "name": "Acme", "currency": "USD",
        "reporting_timezone": "UTC", "charged_by": "tokens", "recorded_at": START,
    }  # fmt: skip
    books.append(books.ACCOUNTS, folder, [account])


def turns() -> Turns:
    return [
        (
            "llm_turns",
            {
                "record_id": name, "session_id": "s", "agent_role": "queen", "model": model, "input_tokens": given,
                "cache_read_input_tokens": read, "output_tokens": output, "occurred_at": at(when), "time_basis": "utc",
            },
        )
        for name, model, when, given, read, output in TURNS
    ]  # fmt: skip


Rated = dict[str, tuple[Any, ...]]


@pytest.fixture(scope="module")
def rated(dbt_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Rated]]:
    """The turns as rated with the knowledge of three builds: then, at the end, and at batch prices."""
    folder = tmp_path_factory.mktemp("books")
    write_books(folder)
    path = dbt_home / "warehouse.duckdb"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("APIARY_WAREHOUSE", str(path))
        warehouse = Warehouse(path, dbt_home / "target")
        warehouse.sign(folder, shipped=False)
        warehouse.load(turns())
        found = {}
        for name, values in (("then", {"known_at": THEN.isoformat()}), ("now", {}), ("batch", {"is_batch": True})):
            refresh = ["--full-refresh"] if name == "batch" else []
            warehouse.run("--select", "+fct_rated_lines", "--vars", json.dumps(values), *refresh)
            rows = warehouse.query(f"select {COLUMNS} from marts.fct_rated_lines group by 1")
            found[name] = {row[0]: row[1:] for row in rows}
            found[f"{name} lines"] = {
                row[0] + row[1]: row
                for row in warehouse.query(
                    "select record_id, component, price_id, billed_cost, low_cost, high_cost, price_known_at,"
                    " _rating_seq, usage_date from marts.fct_rated_lines"
                )
            }
        yield found


def test_the_long_context_surcharge_of_opus_4_6_ended(rated: dict[str, Rated]) -> None:
    """R7, R8: 300,000 x 5 + 1,000 x 25 per million = 1.525; at the tier 300,000 x 10 + 1,000 x 37.5 = 3.0375."""
    assert rated["now"]["opus long, last microsecond with tiers"] == (D("1.525"), D("1.525"), D("3.0375"), True, 0)
    assert rated["now"]["opus long, flat"] == (D("1.525"), D("1.525"), D("1.525"), False, 0)
    assert rated["now"]["opus short, with tiers"] == (D("0.775"), D("0.775"), D("0.775"), False, 0)


def test_sonnet_4_5_is_still_tiered(rated: dict[str, Rated]) -> None:
    """R7: 300,000 x 3 + 1,000 x 15 = 0.915; at the tier 300,000 x 6 + 1,000 x 22.5 = 1.8225."""
    assert rated["now"]["sonnet 4.5 long"] == (D("0.915"), D("0.915"), D("1.8225"), True, 0)


def test_luna_was_cut_on_july_30(rated: dict[str, Rated]) -> None:
    """R8: 0.1 + 0.06 = 0.16 before; 0.02 + 0.012 = 0.032 after; long: 0.06 + 0.012, at the tier 0.12 + 0.018."""
    assert rated["now"]["luna before"][0] == D("0.16")
    assert rated["now"]["luna after"][0] == D("0.032")
    assert rated["now"]["luna long"] == (D("0.072"), D("0.072"), D("0.138"), True, 0)


def test_sol_was_cut_on_august_21_and_no_earlier_line_moved(rated: dict[str, Rated]) -> None:
    """R4: 40,000 x 5 + 60,000 x 0.5 + 10,000 x 30 = 0.2 + 0.03 + 0.3 = 0.53; then 0.16 + 0.024 + 0.2 = 0.384."""
    assert rated["now"]["sol before"][0] == D("0.53")
    assert rated["now"]["sol after"][0] == D("0.384")
    assert rated["then"]["sol after"][0] == D("0.53"), "the cut was not known"
    moved = {name for name, line in rated["now lines"].items() if line[:7] != rated["then lines"][name][:7]}
    assert {rated["now lines"][name][0] for name in moved} == {"sol after", "sonnet 5 in september"}


def test_only_days_that_a_decision_touches_are_rated_again(rated: dict[str, Rated]) -> None:
    """R4: the second build wrote the days of the two changes and left the others as they were."""
    again = {str(line[8]) for line in rated["now lines"].values() if line[7] == 2}
    assert again == {"2026-08-21", "2026-09-02"}


def test_the_rise_of_sonnet_5_was_announced_and_withdrawn(rated: dict[str, Rated]) -> None:
    """1,000,000 x 3 + 100,000 x 15 = 4.5 as known on August 5; 2 + 1 = 3 since the withdrawal of August 10."""
    assert rated["then"]["sonnet 5 in september"][0] == D("4.5")
    assert rated["now"]["sonnet 5 in september"][0] == D(3)
    assert rated["then"]["sonnet 5 in august"][0] == rated["now"]["sonnet 5 in august"][0] == D(3)


def test_cache_reads_have_no_fixed_factor(rated: dict[str, Rated]) -> None:
    """100,000 x 0.25 = 0.025, where a tenth of the input price would be 0.1."""
    assert rated["now"]["fable reads"][0] == D("0.025")


def test_opus_5_is_not_the_beginning_of_opus_5_5(rated: dict[str, Rated]) -> None:
    """R2: 0.05 and 0.02; a name that nobody listed has no price, not that of its beginning."""
    assert rated["now"]["opus 5 reads"][0] == D("0.05")
    assert rated["now"]["opus 5.5 reads"][0] == D("0.02")
    cost, low, high, _, unpriced = rated["now"]["opus 5.5 of another name"]
    assert (cost, unpriced) == (None, 2)
    assert (low, high) == (D("0.008"), D("0.05")), "the cheapest and the dearest cache read of the book"


def test_the_threshold_of_haiku_5_5_is_100_000(rated: dict[str, Rated]) -> None:
    """R8: at the threshold 100,000 x 0.1 = 0.01; one token more may be five times as dear."""
    assert rated["now"]["haiku at its threshold"] == (D("0.01"), D("0.01"), D("0.01"), False, 0)
    assert rated["now"]["haiku over it"] == (D("0.0100001"), D("0.0100001"), D("0.0500005"), True, 0)


def test_deepseek_has_hours(rated: dict[str, Rated]) -> None:
    """R8: a million tokens at 0.135 until 00:30 UTC, at 0.27 from then on, at 0.135 again from 16:30."""
    names = ("night", "first of the day", "last of the day", "evening")
    found = [rated["now"][f"deepseek, {name}"][0] for name in names]
    assert found == [D("0.135"), D("0.27"), D("0.27"), D("0.135")]


def test_batch_is_half_on_all_classes(rated: dict[str, Rated]) -> None:
    """600,000 x 5 + 400,000 x 0.5 + 100,000 x 25 = 3 + 0.2 + 2.5 = 5.7; half of it is 2.85."""
    assert rated["now"]["opus 4.7"][0] == D("5.7")
    assert rated["batch"]["opus 4.7"][0] == D("2.85")


def test_dearer_ways_to_serve_are_sheets_of_their_own(rated: dict[str, Rated]) -> None:
    """US-only inference (1.1 x) and fast mode (6 x) are in the book; a log that does not say so is billed standard."""
    assert rated["now"]["opus 4.7"][:3] == (D("5.7"), D("5.7"), D("5.7"))


def test_haiku_4_5_does_not_cost_what_its_neighbour_did(rated: dict[str, Rated]) -> None:
    """1 + 5 = 6, where the older alias gave 0.8 + 4 = 4.8."""
    assert rated["now"]["haiku 4.5"][0] == D(6)
