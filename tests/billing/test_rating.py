"""What rating promises for any turn and any plan: generated cases against second calculations and against themselves.

R3 to R6, R8 to R11, T1 and T2. The same over whole builds: tests/dbt/test_rating.py, test_contracts.py.
"""

import itertools
import locale
import random
import re
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import duckdb
import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.billing import books
from pipelines.billing.exports import MEASURES, totals
from pipelines.billing.prices import Price, Sheet, Source, decide, propose
from tests import marts
from tests.billing import oracle
from tests.billing.ledgers import RATED
from tests.billing.ratings import Rating
from tests.dbt.test_contracts import unit_by_unit
from tests.dbt.test_rating import COLUMNS, MODELS, START, TENANTS, write_books

MODESTLY = settings(max_examples=8, deadline=None)
KNOWN_AT = datetime(2028, 1, 1, tzinfo=UTC)
SECONDS = st.integers(-20 * 86_400, 140 * 86_400)


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Books with tiers, hours, weekdays, agreements and three currencies."""
    folder = tmp_path_factory.mktemp("books")
    write_books(random.Random(4), folder)
    return folder


@pytest.fixture(scope="module")
def rating(statement_models: Mapping[str, str], signed: Path) -> Iterator[Rating]:
    made = Rating(statement_models, signed)
    yield made
    made.connection.close()


@pytest.fixture(scope="module")
def edges(signed: Path) -> list[datetime]:
    """The instants at which a price begins or ends, and the days whose hours have one."""
    rows = books.read(books.PRICES, [signed])
    days = [row[name] for row in rows for name in ("valid_from", "valid_to") if row[name]]
    marks = sorted({row["tod_from"] for row in rows} | {0})
    return sorted({*days, *(START + timedelta(days=3, seconds=mark) for mark in marks)})


@st.composite
def turns(draw: st.DrawFn, edges: list[datetime], count: int = 12) -> list[dict[str, Any]]:
    """Turns, many of them in the first microsecond of a price or in the last one of another."""
    made = []
    for number in range(draw(st.integers(1, count))):
        instant = draw(st.one_of(st.sampled_from(edges), SECONDS.map(lambda s: START + timedelta(seconds=s))))
        given_ = draw(st.one_of(st.integers(0, 500), st.integers(0, 10**12)))
        read = draw(st.integers(0, given_))
        written = draw(st.integers(0, given_ - read))
        five = draw(st.integers(0, written))
        convention = draw(st.sampled_from(["inclusive", "unproven"]))
        made.append({
            "record_id": f"t{number}", "tenant_id": draw(st.sampled_from(TENANTS)), "session_id": "s",
            "model": draw(st.sampled_from([*(f"log/{m}" for m in MODELS), "nobody's"])),
            "input_tokens": given_, "output_tokens": draw(st.integers(0, 10**9)),
            "cache_read_input_tokens": read, "cache_write_input_tokens": written,
            "cache_write_5m_input_tokens": five, "cache_write_1h_input_tokens": draw(st.integers(0, written - five)),
            "service_tier": draw(st.sampled_from([None, "standard", "batch", "priority"])),
            "speed": draw(st.sampled_from([None, "standard", "fast"])),
            "reported_input_tokens": given_, "cache_convention": convention, "cache_convention_basis": "rule",
            "is_convention_unknown": convention == "unproven",
            "occurred_at": instant - timedelta(microseconds=draw(st.integers(0, 1))),
        })  # fmt: skip
    return made


@MODESTLY
@given(data=st.data())
def test_every_line_is_what_a_second_calculation_says(
    rating: Rating, signed: Path, edges: list[datetime], data: st.DataObject
) -> None:
    """R5, R6, R8, T1, T2: to the last digit, also at the instants where one price ends and another begins."""
    compare(rating, signed, data.draw(turns(edges)))


def test_a_price_counts_from_its_first_microsecond_on(rating: Rating, signed: Path) -> None:
    """Every instant at which a price of the book begins, and the microsecond before."""
    begins = sorted({(row["model"], row["valid_from"]) for row in books.read(books.PRICES, [signed])})
    compare(rating, signed, [
        {
            "record_id": f"t{number}-{early}", "tenant_id": TENANTS[0], "session_id": "s", "model": f"log/{model}",
            "input_tokens": 300, "reported_input_tokens": 300, "output_tokens": 7, "cache_read_input_tokens": 0,
            "cache_write_input_tokens": 0, "cache_write_5m_input_tokens": 0, "cache_write_1h_input_tokens": 0,
            "service_tier": None, "speed": None, "cache_convention": "inclusive", "cache_convention_basis": "rule",
            "is_convention_unknown": False, "occurred_at": instant - timedelta(microseconds=early),
        }
        for number, (model, instant) in enumerate(begins)
        for early in (0, 1)
    ])  # fmt: skip


def test_the_agreement_that_names_the_most_counts(rating: Rating, signed: Path) -> None:
    """Whatever was recorded last: one for the component of a model, one for the model, one for everything."""
    (account, *_) = (row for row in books.read(books.ACCOUNTS, [signed]) if row["tenant_id"] == TENANTS[0])
    named = ({}, {"model": MODELS[0]}, {"model": MODELS[0], "component": "output"})
    fields = dict.fromkeys(("provider_name", "model", "component", "unit_price", "valid_to", "note", "approved_by"))
    rating.put("billing.contract_rates", [
        {
            **fields, "contract_rate_id": f"r{number}", "billing_account_id": account["billing_account_id"],
            "factor": Decimal(1 + number) / 4, "valid_from": date(2020, 1, 1), "recorded_by": "ada",
            "recorded_at": START - timedelta(days=number), **names,
        }
        for number, names in enumerate(named)
    ])  # fmt: skip
    turn = {
        "record_id": "t", "tenant_id": TENANTS[0], "session_id": "s", "model": f"log/{MODELS[0]}", "input_tokens": 300,
        "reported_input_tokens": 300, "output_tokens": 7, "cache_read_input_tokens": 0, "cache_write_input_tokens": 0,
        "cache_convention": "inclusive", "cache_convention_basis": "rule", "occurred_at": START,
    }  # fmt: skip
    other = turn | {"record_id": "u", "model": f"log/{MODELS[1]}"}
    lines = rating.rate([turn, other], "record_id, component, contract_rate_id")
    rating.sign()
    assert lines == [
        ("t", "input_uncached", "r1"), ("t", "output", "r2"), ("u", "input_uncached", "r0"), ("u", "output", "r0"),
    ]  # fmt: skip


def compare(rating: Rating, signed: Path, made: list[dict[str, Any]]) -> None:
    """The lines of these turns are those of the second calculation."""
    found: dict[tuple[str, str], dict[str, tuple[Any, ...]]] = defaultdict(dict)
    for tenant, turn, component, *line in rating.rate(made, COLUMNS):
        found[tenant, turn][component] = tuple(line)
    book = {one.name: books.read(one, [signed]) for one in books.BOOKS}
    for turn in made:
        lines = found.pop((turn["tenant_id"], turn["record_id"]))
        expected = oracle.rate(turn, book, KNOWN_AT)
        assert lines.keys() == expected.keys()
        for name, line in expected.items():
            compared = slice(5 if line[3] is None else None)  # without a price the exposure is of the whole book
            assert lines[name][compared] == tuple(line)[compared], (turn, name)
        given_ = {name: line[0] for name, line in lines.items() if name != "output"}
        assert sum(given_.values()) == turn["input_tokens"], "T2: the components of the input are the input"
        assert all(quantity >= 0 for quantity in given_.values()), "T1: the cache is within the input"
    assert not found
    amounts = "quantity * 0.000001::decimal(7, 6) * list_unit_price - list_cost"
    rest = f"select count(*) from marts.fct_rated_lines where {amounts} <> 0"
    assert rating.connection.execute(rest).fetchone() == (0,), "R5: exactly, without a tolerance"


@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_turns_are_rated_alone(rating: Rating, edges: list[datetime], data: st.DataObject) -> None:
    """Any order, and any split into days of work: the lines of a turn do not depend on the others."""
    made = data.draw(turns(edges))
    together = rating.rate(made)
    assert rating.rate(data.draw(st.permutations(made))) == together
    cut = data.draw(st.integers(0, len(made)))
    apart = rating.rate(made[:cut]) + rating.rate(made[cut:])
    assert sorted(apart, key=str) == sorted(together, key=str)


@MODESTLY
@given(data=st.data())
def test_more_tokens_never_cost_less(rating: Rating, edges: list[datetime], data: st.DataObject) -> None:
    """R9: within a tier, component by component; and nothing that was used costs less than nothing."""
    (one,) = data.draw(turns(edges, 1))
    more = {name: one[name] + data.draw(st.integers(0, 400)) for name in ("input_tokens", "output_tokens")}
    more["reported_input_tokens"] = more["input_tokens"]
    columns = "record_id, component, tier_basis, list_cost, contracted_cost, billed_cost, quantity, price_id"
    lines = {line[:2]: line[2:] for line in rating.rate([one, one | more | {"record_id": "more"}], columns)}
    for (turn, component), (tier, *costs, quantity, price) in lines.items():
        assert all(cost is None or cost >= 0 for cost in costs)
        other = lines.get(("more", component))
        if turn != "more" and other and other[0] == tier and other[-1] == price and other[-2] >= quantity:
            for low, high in zip(costs, other[1:4], strict=True):
                assert low is None or low <= high


@pytest.fixture(scope="module")
def growing(statement_models: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rating]:
    """The same books in a folder that a test adds to."""
    folder = tmp_path_factory.mktemp("growing")
    write_books(random.Random(4), folder)
    made = Rating(statement_models, folder)
    yield made
    made.connection.close()


@MODESTLY
@given(data=st.data())
def test_what_is_decided_for_later_changes_no_line(growing: Rating, edges: list[datetime], data: st.DataObject) -> None:
    """R4: sheets of a time after the turns, and proposals that nobody approved, whatever they say."""
    made = data.draw(turns(edges))
    # What is unpriced is exposed to proposals: that is their use.
    columns = "* exclude (low_cost, high_cost, low_list_cost, high_list_cost)"
    before = growing.rate(made, columns)
    last = max(turn["occurred_at"] for turn in made)
    is_proposal = data.draw(st.booleans())
    number = len(books.read(books.PRICES, [growing.folder]))
    prices = tuple(Price(component=name, unit_price=Decimal(number)) for name in ("input_uncached", "output"))
    sheet = Sheet(
        provider_name="p", model=data.draw(st.sampled_from(MODELS)), prices=prices,
        valid_from=START if is_proposal else last + timedelta(microseconds=1),
        source=Source(name="later", version=str(number), sha256="0" * 64),
    )  # fmt: skip
    now = datetime(2027, 1, 1, tzinfo=UTC) + timedelta(seconds=number)
    propose([growing.folder], [sheet], now=now)
    if not is_proposal:
        decide([growing.folder], [sheet.sheet_id], "approve", by="f", reason="r", now=now)
    growing.sign()
    assert growing.rate(made, columns) == before


def test_the_machine_has_no_say(
    statement_models: Mapping[str, str], signed: Path, edges: list[datetime], monkeypatch: pytest.MonkeyPatch
) -> None:
    """R3: zone, language, threads and the order of rows change no byte; a clock is not asked."""
    made = [
        {
            "record_id": f"t{number}", "tenant_id": "acme", "session_id": "s", "model": f"log/{MODELS[number % 3]}",
            "input_tokens": 300, "output_tokens": 7, "cache_read_input_tokens": 5, "cache_write_input_tokens": 5,
            "reported_input_tokens": 300, "cache_convention": "inclusive", "cache_convention_basis": "default",
            "occurred_at": instant - timedelta(microseconds=number % 2),
        }
        for number, instant in enumerate(edges)
    ]  # fmt: skip
    rated = []
    for zone, language, threads in (("UTC", "C", 1), ("Pacific/Chatham", "C.UTF-8", 4)):
        monkeypatch.setenv("TZ", zone)
        monkeypatch.setenv("LC_ALL", language)
        time.tzset()
        locale.setlocale(locale.LC_ALL, language)
        machine = Rating(statement_models, signed)
        machine.connection.execute(f"set threads = {threads}; set TimeZone = '{zone}'")
        lines = machine.rate(
            reversed(made) if threads > 1 else made,
            "* replace (epoch_us(occurred_at) as occurred_at, epoch_us(price_known_at) as price_known_at)",
        )
        machine.connection.close()
        rated.append(repr(lines))
    monkeypatch.undo()
    time.tzset()
    locale.setlocale(locale.LC_ALL, "")
    assert rated[0] == rated[1]
    assert len(rated[0]) > 10_000
    clocks = re.compile(r"\b(now|today|current_date|current_timestamp|get_current_timestamp|random|uuid)\b")
    assert [name for name in RATED if clocks.search(statement_models[name].lower())] == []


def test_a_line_is_not_tried_with_every_price_of_the_book(rating: Rating) -> None:
    """The book has 30,000 prices: what joins lines and prices finds them by model and component."""
    rating.put("marts.fct_llm_turns", [])
    plan = rating.connection.execute("explain (format json) select * from marts.fct_rated_lines").fetchall()[0][1]
    assert "HASH_JOIN" in plan
    assert "BLOCKWISE_NL_JOIN" not in plan


@st.composite
def sessions_without_models(draw: st.DrawFn) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Turns of a few sessions, some of them without a model, and what was declared about those."""
    names = st.sampled_from(["unknown", "unknown", "log/m-1", "log/m-2", "log/m-3"])
    made = [
        {
            "record_id": f"t{number}", "tenant_id": draw(st.sampled_from(TENANTS[:2])),
            "session_id": draw(st.sampled_from("ab")), "model": draw(names), "input_tokens": 7, "output_tokens": 3,
            "cache_read_input_tokens": 0, "cache_write_input_tokens": 0, "cache_write_5m_input_tokens": 0,
            "cache_write_1h_input_tokens": 0, "reported_input_tokens": 7, "cache_convention": "inclusive",
            "cache_convention_basis": "none", "is_convention_unknown": False,
            "occurred_at": START + timedelta(hours=draw(st.integers(0, 72))),
        }
        for number in range(draw(st.integers(1, 12)))
    ]  # fmt: skip
    policies = []
    for number in range(draw(st.integers(0, 4))):
        rule, first = draw(st.sampled_from(["session", "default", "unknown"])), draw(st.integers(-1, 3))
        policies.append({
            "tenant_id": draw(st.sampled_from([None, *TENANTS[:2]])), "rule": rule,
            "default_model": "log/m-1-5" if rule == "default" else draw(st.sampled_from([None, "log/m-1-5"])),
            "valid_from": (START + timedelta(days=first)).date(),
            "valid_to": draw(st.sampled_from([None, (START + timedelta(days=first + 1)).date()])),
            "recorded_at": START + timedelta(minutes=number), "recorded_by": "f", "approved_by": "g",
        })  # fmt: skip
    return made, policies


def declared(turn: dict[str, Any], made: list[dict[str, Any]], policies: list[dict[str, Any]]) -> tuple[str, str]:
    """As which model a turn is rated, and why."""
    if turn["model"] != "unknown":
        return turn["model"], "reported"
    day = turn["occurred_at"].date()
    words = [
        p
        for p in policies
        if p["tenant_id"] in (None, turn["tenant_id"])
        and p["valid_from"] <= day
        and (p["valid_to"] is None or day < p["valid_to"])
    ]
    if not words:
        return "unknown", "unknown"
    said = max(words, key=lambda p: (p["tenant_id"] is not None, p["recorded_at"]))
    own = [
        t
        for t in made
        if (t["tenant_id"], t["session_id"]) == (turn["tenant_id"], turn["session_id"]) and t["model"] != "unknown"
    ]
    before = [t for t in own if t["occurred_at"] <= turn["occurred_at"]]
    if said["rule"] == "session" and own:
        near = max(before, key=lambda t: (t["occurred_at"], t["record_id"]), default=None)
        first = min(t["occurred_at"] for t in own)
        near = near or max((t for t in own if t["occurred_at"] == first), key=lambda t: t["record_id"])
        return near["model"], "session"
    is_default = said["rule"] != "unknown" and said["default_model"] is not None
    return ("log/m-1-5", "default") if is_default else ("unknown", "unknown")


@settings(max_examples=15, deadline=None)
@given(given_=sessions_without_models())
def test_usage_without_a_model_is_rated_as_somebody_declared(rating: Rating, signed: Path, given_: Any) -> None:
    """As the model that its session used then, as a default, or not at all; and the line says which."""
    made, policies = given_
    rating.put("billing.model_policies", policies)
    try:
        found: dict[tuple[str, str], dict[str, tuple[Any, ...]]] = defaultdict(dict)
        columns = COLUMNS.replace("component", "model, model_basis, component")
        for tenant, record, model, basis, component, *line in rating.rate(made, columns):
            found[tenant, record][component] = (model, basis, *line)
    finally:
        rating.put("billing.model_policies", [])
    book = {one.name: books.read(one, [signed]) for one in books.BOOKS}
    for turn in made:
        model, basis = declared(turn, made, policies)
        expected = oracle.rate(turn | {"model": model}, book, KNOWN_AT)
        lines = found[turn["tenant_id"], turn["record_id"]]
        assert lines.keys() == expected.keys()
        for name, line in expected.items():
            compared = slice(5 if line[3] is None else None)
            assert lines[name][:2] == (model, basis), turn
            assert lines[name][2:][compared] == tuple(line)[compared], turn


# plans ----------------------------------------------------------------------------------------------------------------

AMOUNTS = st.integers(1, 10**11).map(lambda n: Decimal(n).scaleb(-9))
JANUARY = date(2026, 1, 1)


@st.composite
def plan_items(draw: st.DrawFn) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, int]]:
    """Items of as many accounts, their tiers, and the units that were used."""
    items, tiers, units = [], [], {}
    for number in range(draw(st.integers(1, 8))):
        pricing = draw(st.sampled_from(("per_unit", "package", "graduated", "volume")))
        is_tiered = pricing in ("graduated", "volume")
        name = f"i{number}"
        items.append({
            "plan_item_id": name, "billing_account_id": name, "item": draw(st.sampled_from(("tokens", "colony_day"))),
            "pricing": pricing, "note": None, "included_units": draw(st.integers(0, 5)),
            "package_size": draw(st.integers(1, 7)) if pricing == "package" else None,
            "unit_price": None if is_tiered else draw(AMOUNTS), "commit_amount": draw(st.none() | AMOUNTS),
            "valid_from": JANUARY, "valid_to": None, "recorded_at": START,
        })  # fmt: skip
        if is_tiered:
            for edge in sorted(draw(st.sets(st.integers(1, 40), max_size=3)) | {0}):
                tier = {"plan_item_id": name, "tier_from": edge, "unit_price": draw(AMOUNTS)}
                tiers.append(tier | {"recorded_at": START})
        units[name] = draw(st.integers(0, 60))
    return items, tiers, units


@MODESTLY
@given(made=plan_items())
def test_a_plan_costs_what_its_units_do_one_by_one(rating: Rating, made: Any) -> None:
    """R10: packages, tiers, included units and commitments against a count unit by unit."""
    items, tiers, units = made
    rating.put("billing.plan_items", items)
    rating.put("billing.plan_tiers", tiers)
    used = {"billed_cost": Decimal(0), "billing_month": JANUARY}
    rating.put(
        "statements.int_billing__account_months",
        [used | {"billing_account_id": name, "tokens": count, "colony_days": count} for name, count in units.items()],
    )
    charges = "select plan_item_id, charge_kind, amount from statements.int_billing__plan_charges"
    found: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    for name, kind, amount in rating.connection.execute(charges).fetchall():
        found[name, kind] += amount
    for item in items:
        name = item["plan_item_id"]
        expected = unit_by_unit(item, tiers, units[name])
        assert found[name, "plan"] == expected, item
        assert found[name, "true_up"] == max((item["commit_amount"] or 0) - expected, 0), item


@settings(max_examples=40, deadline=None)
@given(price=AMOUNTS, days=st.integers(28, 31), cuts=st.sets(st.integers(1, 27), max_size=6))
def test_the_parts_of_a_month_are_the_month(rating: Rating, price: Decimal, days: int, cuts: set[int]) -> None:
    """R11: however a month is cut into spans of days, the parts add up to the price exactly."""
    macros = Path(__file__).resolve().parents[2] / "dbt_project" / "macros"

    def macro(file: str, name: str, called: str) -> str:
        _, found, body = (macros / file).read_text("utf-8").partition("{% macro " + name + "(")
        assert found, name
        return "{% macro " + called + "(" + body.partition("{%- endmacro %}")[0] + "{%- endmacro %}"

    quotient = macro("engine.sql", "duckdb__whole_quotient", "whole_quotient")
    prorated = jinja2.Template(quotient + macro("money.sql", "prorated", "prorated")).module.prorated
    whole = f"cast({price} as decimal(18, 9))"
    parts = [prorated(whole, first, end, days) for first, end in itertools.pairwise([0, *sorted(cuts), days])]
    assert rating.connection.execute(f"select {' + '.join(parts)}").fetchone() == (price,)


def test_ten_million_nano_dollars_are_a_cent() -> None:
    """Test 57: M1, in every type that money has here, summed one by one; floats miss it."""
    kinds = {
        kind
        for columns in marts.types().values()
        for name, kind in columns.items()
        if kind.startswith("decimal") and re.search("cost|price|amount|usd|balance", name)
    } - {"decimal(18,2)"}  # what is payable
    assert len(kinds) >= 3
    with duckdb.connect() as connection:
        for kind in (*sorted(kinds), "double"):
            sql = f"select sum(cast(0.000000001 as {kind})) from range(10000000)"
            (total,) = connection.execute(sql).fetchone() or (None,)
            assert (total == Decimal("0.01")) == (kind != "double"), kind
    with localcontext(prec=5):  # the manifest's totals do not depend on who calls
        row = {"BillingCurrency": "USD", "ChargeCategory": "Usage"} | dict.fromkeys(MEASURES, Decimal("0.000000001"))
        assert totals([row] * 10**5)["USD"]["Usage"]["BilledCost"] == "0.0001"
