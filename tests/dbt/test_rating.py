"""Rating by SQL against a second calculation: random books, contracts and turns, every line, to the last digit.

R1, R2, R3, R5, R6, R8, R9, T1, T2, T3 and M1. What prices really did is in test_price_events.py.
"""

import itertools
import random
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from pipelines.billing import books
from pipelines.billing.prices import Price, Sheet, Source, decide, propose
from tests.billing import oracle
from tests.warehouse import PROJECT, Warehouse

START = datetime(2026, 1, 1, tzinfo=UTC)
MICRO = timedelta(microseconds=1)
MODELS = ("m-1", "m-1-5", "m-2", "m-3")
TENANTS = ("acme", "globex", "initech", "umbrella")
COLUMNS = (
    "tenant_id, record_id, component, quantity, rating_status, price_id, list_cost, billed_cost, low_cost, high_cost"
)


def price(rng: random.Random) -> Decimal:
    """A price per million with up to nine decimals."""
    return Decimal(rng.randint(1, 10 ** rng.randint(1, 11))).scaleb(-9)


def random_sheet(rng: random.Random, model: str, day: int) -> Sheet:
    """A sheet with or without tiers, hours, weekdays and a price of an hour's cache."""
    tiers = [0, *sorted(rng.sample(range(1, 400), rng.randint(0, 2)))]
    cuts = [0, *sorted(rng.sample(range(1, 86_400), rng.randint(0, 2))), 86_400]
    masks = rng.choice([(127,), (31, 96), (1, 126)])
    kinds = [
        "input_uncached",
        "cache_read",
        "cache_write_5m",
        "output",
        *rng.sample(["cache_write_1h"], rng.randint(0, 1)),
    ]
    prices = []
    for kind in kinds:
        is_free = rng.random() < 0.05
        for tier in tiers if rng.random() < 0.7 else [0]:
            for mask in masks:
                for begin, end in itertools.pairwise(cuts):
                    prices.append(
                        Price(
                            component=kind, unit_price=Decimal(0) if is_free else price(rng), is_free=is_free,
                            context_tier_min=tier, dow_mask=mask, tod_from=begin, tod_to=end,
                        )
                    )  # fmt: skip
    end = START + timedelta(days=day + rng.randint(1, 40)) if rng.random() < 0.3 else None
    return Sheet(
        provider_name="p", model=model, prices=tuple(prices), valid_from=START + timedelta(days=day), valid_to=end,
        source=Source(name="random", version=str(rng.random()), sha256="0" * 64),
        currency="USD",
    )  # fmt: skip


def write_books(rng: random.Random, folder: Path) -> None:
    now = datetime(2026, 6, 1, tzinfo=UTC)
    for number in range(10):
        sheet = random_sheet(rng, rng.choice(MODELS[:3]), rng.choice([-30, 0, 30, 60, 90]))
        moment = now + timedelta(hours=number)
        propose([folder], [sheet], now=moment)
        word = rng.random()
        if word < 0.9:
            decide([folder], [sheet.sheet_id], "approve", by="f", reason="r", now=moment)
        if word < 0.1:
            decide([folder], [sheet.sheet_id], "reject", by="f", reason="r", now=moment + timedelta(minutes=1))
    alias = {"provider_name": "p", "note": None, "recorded_at": START}
    books.append(
        books.ALIASES,
        folder,
        [alias | {"alias_id": m, "model": f"log/{m}", "price_model": m} for m in MODELS[1:]],
    )
    prefixes = [("log", "p"), ("other", "p"), (None, "p"), ("log", "nobody")]
    books.append(
        books.PREFIXES, folder, [{"prefix": x, "provider_name": name, "recorded_at": START} for x, name in prefixes]
    )
    accounts = [("A", "acme", "USD", "tokens"), ("G", "globex", "EUR", "tokens"), ("I", "initech", "USD", "plan")]
    books.append(
        books.ACCOUNTS, folder,
        [
            {
                "billing_account_id": a, "tenant_id": t, "name": t, "currency": c, "reporting_timezone": "UTC",
                "charged_by": by, "recorded_at": START,
            }
            for a, t, c, by in accounts
        ],
    )  # fmt: skip
    books.append(
        books.FX_RATES, folder,
        [
            {
                "fx_rate_id": f"fx{day}", "currency_from": "USD", "currency_to": "EUR", "source": "ecb",
                "rate": Decimal(rng.randint(8 * 10**9, 12 * 10**9)).scaleb(-10), "recorded_at": START,
                "valid_from": (START + timedelta(days=day)).date(),
            }
            for day in range(-60, 150, 7)
        ],
    )  # fmt: skip
    contracts = []
    for number in range(12):
        start = rng.randint(-10, 60)
        is_factor = rng.random() < 0.6
        contracts.append(
            {
                "contract_rate_id": f"c{number}", "billing_account_id": rng.choice("AGI"),
                "provider_name": rng.choice([None, "p"]), "model": rng.choice([None, *MODELS[:3]]),
                "component": rng.choice([None, "output", "cache_write", "cache_read"]), "note": None,
                "factor": Decimal(rng.randint(1, 3 * 10**9)).scaleb(-9) if is_factor else None,
                "unit_price": None if is_factor else price(rng), "valid_from": (START + timedelta(days=start)).date(),
                "valid_to": rng.choice([None, (START + timedelta(days=start + 30)).date()]),
                "recorded_at": START + timedelta(minutes=number),
            }
        )  # fmt: skip
    books.append(books.CONTRACT_RATES, folder, contracts)
    conventions = [
        {
            "cache_convention_id": f"cc{number}", "tenant_id": rng.choice([None, *TENANTS[:2]]),
            "model": rng.choice([None, *(f"log/{m}" for m in MODELS[:2])]), "gateway": rng.choice([None, "log"]),
            "convention": rng.choice(["inclusive", "exclusive", "read_inclusive", "unknown"]), "decided_by": "f",
            "reason": "r", "valid_from": START + timedelta(days=rng.randint(-20, 40)),
            "valid_to": rng.choice([None, START + timedelta(days=90)]),
            "recorded_at": START + timedelta(minutes=number),
        }
        for number in range(16)
    ]  # fmt: skip
    books.append(books.CACHE_CONVENTIONS, folder, conventions)


def random_turns(rng: random.Random, folder: Path, count: int) -> list[dict[str, Any]]:
    """Turns, many of them at an edge of a price: at its first instant, or one microsecond before."""
    rows = books.read(books.PRICES, [folder])
    edges = [row[name] for row in rows for name in ("valid_from", "valid_to") if row[name]]
    marks = [row[name] for row in rows for name in ("tod_from", "tod_to")]
    turns = []
    for number in range(count):
        instant = START + timedelta(microseconds=rng.randint(-20 * 86_400_000_000, 140 * 86_400_000_000))
        if number % 3 == 0:
            instant = rng.choice(edges)
        elif number % 3 == 1:
            midnight = instant.replace(hour=0, minute=0, second=0, microsecond=0)
            instant = midnight + timedelta(seconds=rng.choice(marks))
        instant -= MICRO * rng.randint(0, 1)
        given = rng.choice([0, 1, rng.randint(0, 500), rng.randint(0, 10**12)])
        turns.append(
            {
                "record_id": f"t{number}", "tenant_id": rng.choice(TENANTS), "session_id": f"s{number % 17}",
                "agent_role": "queen", "model": rng.choice([*(f"log/{m}" for m in MODELS), "log/m-1-5-fast", "k1_0"]),
                "input_tokens": given, "output_tokens": rng.choice([0, rng.randint(0, 10**9)]),
                "cache_read_input_tokens": rng.randint(0, given + 1),
                "cache_write_input_tokens": rng.randint(0, given + 1),
                "reported_cost_usd": rng.choice([None, price(rng)]), "occurred_at": instant, "time_basis": "utc",
            }
        )  # fmt: skip
    return turns


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.long), pytest.param(3, marks=pytest.mark.long)])
def test_sql_and_a_second_calculation_agree_on_every_line(warehouse: Warehouse, tmp_path: Path, seed: int) -> None:
    """Test 55; R2, R5, R6, R8, T1, T2: quantity, price, cost and exposure of every component of every turn."""
    rng = random.Random(seed)
    write_books(rng, tmp_path)
    warehouse.sign(tmp_path, shipped=False)
    turns = random_turns(rng, tmp_path, 900)
    warehouse.load([("llm_turns", turn) for turn in turns])
    warehouse.run("--select", "+fct_rated_lines")
    found: dict[tuple[str, str], dict[str, tuple[Any, ...]]] = defaultdict(dict)
    for tenant, turn, component, *line in warehouse.query(f"select {COLUMNS} from marts.fct_rated_lines"):
        found[tenant, turn][component] = tuple(line)
    signed = {book.name: books.read(book, [tmp_path]) for book in books.BOOKS}
    known_at = datetime(2027, 1, 1, tzinfo=UTC)
    statuses: set[str] = set()
    turns = oracle.normalized(turns, signed)
    assert {turn["cache_convention"] for turn in turns} == {"inclusive", "exclusive", "read_inclusive", "unproven"}
    for turn in turns:
        expected = oracle.rate(turn, signed, known_at)
        lines = found[turn["tenant_id"], turn["record_id"]]
        statuses |= {line[1] for line in lines.values()}
        exact = {
            # Without a price the exposure is that of the whole book (decision 0027), whether a plan pays or nobody.
            name: line if line[3] is not None else (*line[:5], None, None)
            for name, line in lines.items()
        }
        assert exact == {name: tuple(line) for name, line in expected.items()}, turn
        tokens = {name: line[0] for name, line in lines.items()}
        assert sum(tokens.values()) == turn["input_tokens"] + turn["output_tokens"], "T2: components partition"
    assert statuses == {"rated", "unpriced", "unattributed", "excluded"}
    assert warehouse.dbt("test", "--select", "assert_one_price_at_a_time", "assert_rated_lines_are_the_turns").success
    _assert_the_zone_of_the_machine_does_not_matter(warehouse)
    _assert_money_is_decimal(warehouse)
    bad = warehouse.query(
        "select count(*) from marts.fct_rated_lines where low_cost > high_cost or contracted_cost < low_cost"
        " or contracted_cost > high_cost or (list_unit_price = 0) <> is_free or (billed_cost is null) <>"
        " (rating_status = 'unpriced')"
    )
    assert bad == [(0,)], "R2, R9: a cost lies within its exposure, and zero only where the book says free"


def _assert_the_zone_of_the_machine_does_not_matter(warehouse: Warehouse) -> None:
    """R3: the compiled SQL under another zone of the session gives the rows that stand."""
    compiled = warehouse.target / "compiled" / "apiary" / "models" / "rating" / "fct_rated_lines.sql"
    with warehouse.connect() as connection:
        connection.execute("set timezone = 'Pacific/Auckland'")
        connection.execute("set threads = 1")
        columns = ", ".join(  # by name: the table has the order of its contract
            c for c in warehouse.columns("fct_rated_lines") if c not in {"occurred_at", "price_known_at"}
        )
        again = f"(select {columns} from ({compiled.read_text('utf-8')}))"
        stands = f"(select {columns} from marts.fct_rated_lines)"
        for one, other in ((again, stands), (stands, again)):
            assert connection.execute(f"select count(*) from ({one} except all {other})").fetchall() == [(0,)]


def _assert_money_is_decimal(warehouse: Warehouse) -> None:
    """M1: no column of money, in any mart, is a float."""
    floats = warehouse.query(
        "select table_name, column_name from information_schema.columns where table_schema in ('marts', 'billing')"
        " and data_type in ('DOUBLE', 'FLOAT', 'REAL') and column_name not like '%_seconds'"
    )
    assert [pair for pair in floats if "cost" in pair[1] or "price" in pair[1] or "amount" in pair[1]] == []


def test_cost_rises_with_tokens_within_a_tier(warehouse: Warehouse, tmp_path: Path) -> None:
    """R9, T3: more tokens never cost less; a tree of sessions costs what its turns do, each counted once."""
    sheet = random_sheet(random.Random(5), "m-1", -30)
    flat = Sheet(
        provider_name="p", model="m-1", valid_from=sheet.valid_from, source=sheet.source,
        prices=tuple(Price(component=name, unit_price=Decimal("0.003625")) for name in ("input_uncached", "output")),
    )  # fmt: skip
    propose([tmp_path], [flat], now=START)
    decide([tmp_path], [flat.sheet_id], "approve", by="f", reason="r", now=START)
    books.append(
        books.ALIASES, tmp_path,
        [
            {
                "alias_id": "a", "model": "m-1", "provider_name": "p", "price_model": "m-1", "note": None,
                "recorded_at": START,
            }
        ],
    )  # fmt: skip
    warehouse.sign(tmp_path, shipped=False)
    counts = [0, 1, 2, 999, 10**6, 10**12]
    rows = [
        (
            "llm_turns",
            {
                "record_id": f"t{n}", "session_id": f"w{n}" if n else "root", "agent_role": "worker" if n else "queen",
                "parent_session_id": "root" if n else None, "model": "m-1", "input_tokens": n, "output_tokens": n,
                "occurred_at": START, "time_basis": "utc",
            },
        )
        for n in counts
    ]  # fmt: skip
    warehouse.load(rows)
    warehouse.run("--select", "+fct_rated_lines")
    costs = warehouse.query("select sum(billed_cost) from marts.fct_rated_lines group by record_id order by 1")
    assert [cost for (cost,) in costs] == [2 * n * Decimal("0.000000003625") for n in counts]
    tree = warehouse.query("select root_session_id, sum(billed_cost) from marts.fct_rated_lines group by 1")
    assert tree == [("root", 2 * sum(counts) * Decimal("0.000000003625"))]


def test_sql_of_money_divides_nothing_and_rounds_in_one_macro() -> None:
    """M1: where rated and billed no division, no average, no float; rounding of money only in two files of macros."""
    import re

    layers = (PROJECT.parent / "models" / layer for layer in ("rating", "statements", "analytics/billing"))
    for path in (path for layer in layers for path in layer.rglob("*.sql")):
        sql = re.sub(r"\{#.*?#\}|\{\{.*?\}\}|--[^\n]*|'[^']*'", "", path.read_text("utf-8"), flags=re.DOTALL).lower()
        assert not re.search(r"/|\b(avg|double|float|real|round|ceil|floor|trunc)\b", sql), path.name
    macros = (PROJECT / "macros").glob("*.sql")
    assert {path.name for path in macros if re.search(r"\b(round|floor|ceil|trunc)\(", path.read_text("utf-8"))} == {
        "engine.sql",  # the place of a quantile in a list
        "money.sql",  # unit prices
        "statement.sql",  # what an invoice asks for
    }


def test_a_day_is_rated_by_what_is_known(warehouse: Warehouse, tmp_path: Path) -> None:
    """R2, R4: an approval prices the lines of its model and touches no other; taking it back unprices them again."""
    day = date(2026, 3, 1)
    one, two = (random_sheet(random.Random(7), model, -30) for model in ("m-1", "m-2"))
    prices = tuple(Price(component=name, unit_price=Decimal(5)) for name in ("input_uncached", "output"))
    one, two = (
        Sheet(provider_name="p", model=s.model, prices=prices, valid_from=s.valid_from, source=s.source)
        for s in (one, two)
    )
    alias = {"provider_name": "p", "note": None, "recorded_at": START}
    books.append(
        books.ALIASES, tmp_path, [alias | {"alias_id": m, "model": m, "price_model": m} for m in ("m-1", "m-2")]
    )
    propose([tmp_path], [one, two], now=START)
    decide([tmp_path], [one.sheet_id], "approve", by="f", reason="r", now=START)
    warehouse.sign(tmp_path, shipped=False)
    warehouse.load(
        [
            (
                "llm_turns",
                {
                    "record_id": model, "session_id": model, "agent_role": "queen", "model": model,
                    "input_tokens": 10, "output_tokens": 10, "time_basis": "utc",
                    "occurred_at": datetime(day.year, day.month, day.day + number, tzinfo=UTC),
                },
            )
            for number, model in enumerate(("m-1", "m-2"))
        ]
    )  # fmt: skip
    rows = (
        "select record_id, rating_status, low_cost, high_cost, _rating_seq from marts.fct_rated_lines"
        " where component = 'output' order by 1"
    )
    cost = Decimal("0.00005")
    warehouse.run("--select", "+fct_rated_lines")
    assert warehouse.query(rows) == [
        ("m-1", "unattributed", cost, cost, 1),
        ("m-2", "unpriced", cost, cost, 1),  # what was proposed is its exposure
    ]
    decide([tmp_path], [two.sheet_id], "approve", by="f", reason="r", now=START + timedelta(days=1))
    warehouse.sign(tmp_path, shipped=False)
    warehouse.run("--select", "+fct_rated_lines")
    assert [row[1] + str(row[4]) for row in warehouse.query(rows)] == ["unattributed1", "unattributed2"]
    decide([tmp_path], [one.sheet_id], "reject", by="f", reason="r", now=START + timedelta(days=2))
    warehouse.sign(tmp_path, shipped=False)
    warehouse.run("--select", "+fct_rated_lines")
    assert [row[1] + str(row[4]) for row in warehouse.query(rows)] == ["unpriced3", "unattributed2"]


def test_a_floating_name_is_another_model_from_a_day_on(warehouse: Warehouse, tmp_path: Path) -> None:
    """Before its first day nobody knows what it means; a day after which it is said otherwise is rated again alone."""
    day = date(2026, 3, 1)
    sheets = [
        Sheet(
            provider_name="p", model=model, valid_from=START - timedelta(days=30),
            source=random_sheet(random.Random(7), model, -30).source,
            prices=tuple(Price(component=name, unit_price=Decimal(price)) for name in ("input_uncached", "output")),
        )
        for model, price in (("m-1", 1), ("m-2", 2), ("m-3", 3))
    ]  # fmt: skip
    propose([tmp_path], sheets, now=START)
    decide([tmp_path], [sheet.sheet_id for sheet in sheets], "approve", by="f", reason="r", now=START)

    def say(model: str, since: date, at: datetime) -> None:
        row = {"alias_id": f"{model}{since}", "model": "family", "provider_name": "p", "price_model": model}
        books.append(books.ALIASES, tmp_path, [row | {"note": None, "recorded_at": at, "valid_from": since}])
        warehouse.sign(tmp_path, shipped=False)
        warehouse.run("--select", "+fct_rated_lines")

    warehouse.load(
        [
            (
                "llm_turns",
                {
                    "record_id": f"t{n}", "session_id": "s", "agent_role": "queen", "model": "family",
                    "time_basis": "utc", "occurred_at": datetime(2026, 3, 1 + n, tzinfo=UTC),
                    "input_tokens": 0, "output_tokens": 1_000_000,
                },
            )
            for n in range(4)
        ]
    )  # fmt: skip
    rated = (
        "select price_model, model_basis, list_cost, _rating_seq from marts.fct_rated_lines where component = 'output'"
        " order by usage_date"
    )
    say("m-1", day + timedelta(days=1), START)
    say("m-2", day + timedelta(days=3), START)
    first = warehouse.query(rated)
    assert [row[:3] for row in first] == [
        (None, "reported", None),
        *[("m-1", "alias", Decimal(1))] * 2,
        ("m-2", "alias", Decimal(2)),
    ]
    say("m-3", day + timedelta(days=2), START + timedelta(hours=1))
    then = warehouse.query(rated)
    assert [row[0] for row in then] == [None, "m-1", "m-3", "m-2"]
    assert [old[3] == new[3] for old, new in zip(first, then, strict=True)] == [True, True, False, True]
