"""Cache tokens beside the input are billed: by the evidence of a turn's numbers, else as somebody said.

Does not belong here: the arithmetic over random turns and books (test_rating.py).
"""

import itertools
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import jinja2
import pytest

from pipelines.billing import books, cache_conventions
from pipelines.billing.cache_conventions import CacheConventionError
from pipelines.warehouse import book_changes
from tests.warehouse import REPOSITORY, Warehouse

AT = datetime(2026, 11, 20, 10, tzinfo=UTC)
HAIKU = "anthropic/claude-haiku-4-5"
BUILT = ("+exc_billing_exceptions", "+agg_usage_session_daily")
COSTS = "select record_id, sum(contracted_cost), sum(low_cost), sum(high_cost) from marts.fct_rated_lines group by all"
QUESTIONS = (
    "select tenant_id, model, turns, low_cost, high_cost from marts.exc_billing_exceptions where exception_kind ="
)


def turn(name: str, given: int, read: int, written: int, **more: Any) -> tuple[str, dict[str, Any]]:
    return "llm_turns", {
        "record_id": name, "session_id": f"s-{name}", "agent_role": "queen", "model": HAIKU, "input_tokens": given,
        "cache_read_input_tokens": read, "cache_write_input_tokens": written, "output_tokens": 0, "time_basis": "utc",
        "occurred_at": AT, **more,
    }  # fmt: skip


def sign(warehouse: Warehouse, folder: Path) -> bool:
    """Read the books as the job does."""
    with warehouse.connect() as connection:
        signed = [books.SHIPPED, folder]
        read = {book.name: books.read(book, signed) for book in (books.CACHE_CONVENTIONS, books.SESSION_USERS)}
        is_changed = bool(book_changes.touch(connection, read))
        books.load(connection, signed)
    return is_changed


def state(folder: Path, convention: cache_conventions.Convention, **named: str) -> None:
    cache_conventions.state(
        [books.SHIPPED, folder], convention, named=dict(named), by="ada", reason="the gateway's manual",
        valid_from=AT - timedelta(days=1), valid_to=None, now=datetime.now(UTC),
    )  # fmt: skip


def test_what_a_source_counts_is_said_later_and_rated_again(warehouse: Warehouse, tmp_path: Path) -> None:
    warehouse.load([
        turn("one", 86, 17_817, 0, output_tokens=500),
        turn("two", 4, 0, 15_178, output_tokens=120),
        turn("three", 10_000, 9_000, 2_000, output_tokens=120),
        turn("four", 10_000, 4_000, 1_000),
        turn("other", 10_000, 4_000, 1_000, tenant_id="globex"),
    ])  # fmt: skip
    assert not sign(warehouse, tmp_path)
    warehouse.run("--select", *BUILT)
    known = {
        "one": Decimal("0.0043677"), "two": Decimal("0.0195765"), "three": Decimal("0.005"), "four": Decimal("0.00665"),
        "other": Decimal("0.00665"),
    }  # fmt: skip
    found = {name: costs for name, *costs in warehouse.query(COSTS)}
    assert {name: cost for name, (cost, _, _) in found.items()} == known
    assert {name: low for name, (_, low, _) in found.items()} == known
    high = {"three": Decimal("0.014"), "four": Decimal("0.01165")}  # all that was reported as input was uncached
    ttl = {"two": 15_178, "three": 2_000, "four": 1_000, "other": 1_000}  # a written cache may live for an hour: 2 USD
    for name, (_, _, most) in found.items():
        assert most == high.get(name, known[name]) + ttl.get(name, 0) * Decimal("0.00000075"), name
    kind = f"{QUESTIONS} 'cache_convention_unknown'"
    assert warehouse.query(kind) == [("acme", HAIKU, 2, Decimal("0.006"), Decimal("0.02"))]
    used = "select sum(input_tokens), sum(cache_read_input_tokens) from marts.agg_usage_session_daily"
    assert warehouse.query(used) == [(86 + 17_817 + 4 + 15_178 + 12_000 + 20_000, 34_817)]

    state(tmp_path, "exclusive", tenant_id="acme", model=HAIKU)
    assert sign(warehouse, tmp_path)
    assert not sign(warehouse, tmp_path), "what is known already touches nothing"
    warehouse.run("--select", *BUILT)
    costs = {name: cost for name, cost, *_ in warehouse.query(COSTS)}
    assert costs == known | high
    assert warehouse.query(kind) == []
    assert warehouse.query(used) == [(86 + 17_817 + 4 + 15_178 + 21_000 + 15_000 + 10_000, 34_817)]
    components = "select cast(sum(quantity) as bigint) from marts.fct_rated_lines where component"
    assert warehouse.query(f"{components} = 'input_uncached'") == [(86 + 4 + 10_000 + 10_000 + 5_000,)]
    assert warehouse.query(f"{components} = 'cache_read'") == [(34_817,)]
    step_by_step = warehouse.marts()
    warehouse.run("--full-refresh", "--select", *BUILT)
    assert warehouse.marts() == step_by_step


def second_calculation(given: int, read: int, written: int, stated: str | None) -> tuple[str, int]:
    """The convention and the input with its cache, by the rules in words.

    No cache: nothing to decide. A part above the whole is beside it, whatever anybody says. Else what somebody said.
    Where nobody did, it is within, unless both parts together do not fit: then only the lesser part is beside.
    """
    if read + written == 0:
        return "inclusive", given
    if max(read, written) > given:
        return "exclusive", given + read + written
    if stated == "exclusive":
        return stated, given + read + written
    if stated == "read_inclusive":
        return stated, given + written
    if read + written > given:
        return "unproven", given + min(read, written)
    return ("unproven" if stated == "unknown" else "inclusive"), given


def test_the_input_with_cache_is_what_a_second_calculation_says() -> None:
    source = (REPOSITORY / "dbt_project" / "macros" / "cache_convention.sql").read_text("utf-8")
    macros: Any = jinja2.Environment().from_string(source).module
    rows = [
        (given, read, written, stated)
        for given, read, written in itertools.product(range(6), repeat=3)
        for stated in (None, "inclusive", "exclusive", "read_inclusive", "unknown")
    ]
    convention = macros.cache_convention("given", "read", "written", "stated")
    total = macros.input_tokens_with_cache("given", "read", "written", "convention")
    with duckdb.connect() as connection:
        connection.execute("create table rows (given bigint, read bigint, written bigint, stated varchar)")
        connection.executemany("insert into rows values (?, ?, ?, ?)", rows)
        found = connection.execute(
            f"select given, read, written, stated, convention, {total}"
            f" from (select *, {convention} as convention from rows)"
        ).fetchall()
    assert len(found) == len(rows)
    for *given, convention, total in found:
        assert (convention, total) == second_calculation(*given), given


@pytest.mark.parametrize(("named", "reason"), [({}, "r"), ({"tenant_id": ""}, "r"), ({"tenant_id": "acme"}, " ")])
def test_a_statement_says_of_whom_and_why(tmp_path: Path, named: dict[str, str | None], reason: str) -> None:
    with pytest.raises(CacheConventionError):
        cache_conventions.state(
            [tmp_path], "exclusive", named=named, by="ada", reason=reason, valid_from=AT, valid_to=None, now=AT
        )
