"""What `apiary usage` prints: sums of the published marts, exact, in a fixed order."""

from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pipelines.warehouse import usage
from pipelines.warehouse.usage import COSTS, DIMENSIONS, MEASURES

MARCH = [date(2026, 3, day) for day in (1, 2, 3)]
# tenant, user, colony, session, agent, model, day, turns, input, output, calls, unpriced, cost
USED = [
    ("acme", "ada", "c1", "s1", "queen", "m1", MARCH[0], 2, 100, 10, 1, 0, "0.10000000000000000001"),
    ("acme", "ada", "c1", "s1", "queen", "m1", MARCH[1], 1, 50, 5, 0, 0, "0.2"),
    ("acme", "bob", None, "s2", "worker", "m2", MARCH[1], 1, 500, 50, 0, 1, None),
    ("acme", "bob", "c9", "s3", "worker", "m2", MARCH[2], 1, 7, 7, 4, 1, None),
    ("bolt", "ada", "c1", "s1", "queen", "m1", MARCH[2], 1, 1000, 0, 0, 0, "1000000000000000.00000000000000000001"),
    ("bolt", "UNATTRIBUTED", None, "s9", "other", "unknown", MARCH[0], 0, 0, 0, 3, 0, None),
]

# What the book says of each row of USED by its number, and its tokens without a price.
RATED = {0: ("0.20000000000000000003", 0), 2: (None, 550), 4: ("7", 0)}


@pytest.fixture
def marts(tmp_path: Path) -> Path:
    (tmp_path / "current").mkdir()
    return fill(tmp_path, USED)


def fill(folder: Path, rows: Sequence[tuple[Any, ...]]) -> Path:
    with duckdb.connect(str(folder / "current" / "marts.duckdb")) as connection:
        connection.execute(
            """
            CREATE TABLE agg_usage_session_daily (
                tenant_id VARCHAR, user_id VARCHAR, colony_id VARCHAR, session_id VARCHAR, agent_kind VARCHAR,
                model VARCHAR,
                usage_date DATE, turns BIGINT, input_tokens BIGINT, output_tokens BIGINT, tool_calls BIGINT,
                unreported_turns BIGINT, reported_cost_usd DECIMAL(38, 20),
                cache_read_input_tokens BIGINT, cache_write_input_tokens BIGINT,
                rated_cost_usd DECIMAL(38, 20), rated_cost_low_usd DECIMAL(38, 20),
                rated_cost_high_usd DECIMAL(38, 20), unpriced_tokens BIGINT, unpriced_turns BIGINT,
                agent_runtime VARCHAR
            )
            """
        )
        if rows:
            marks = ", ".join("?" * 13)
            rated = [RATED.get(number, (None, 0)) if rows == USED else (None, 0) for number in range(len(rows))]
            connection.executemany(
                f"INSERT INTO agg_usage_session_daily VALUES ({marks}, 1, 2, ?, ?, ?, ?, ?, 'hive')",
                [
                    (*row, cost, cost, cost, tokens, int(tokens > 0))
                    for row, (cost, tokens) in zip(rows, rated, strict=True)
                ],
            )
        # Of two sessions one is known: usage of the other must not be lost.
        connection.execute(
            "CREATE TABLE dim_sessions AS SELECT tenant_id, min(session_id) AS session_id, 'queen:growth' AS agent_id"
            " FROM agg_usage_session_daily GROUP BY tenant_id"
        )
        connection.execute("CREATE TABLE dim_colonies (tenant_id VARCHAR, colony_id VARCHAR, colony_name VARCHAR)")
        # Two tenants with a colony of one id, and one that nothing was used in.
        connection.execute(
            "INSERT INTO dim_colonies VALUES ('acme', 'c1', 'x'), ('bolt', 'c1', 'y'), ('acme', 'c2', 'z')"
        )
    return folder


@pytest.mark.parametrize("by", DIMENSIONS)
def test_every_dimension_adds_up_to_the_whole(marts: Path, by: str) -> None:
    """A join that fans out, or loses what is in no colony, would not."""
    rows = usage.usage(marts, by)
    assert all(set(row) == {*DIMENSIONS[by], *MEASURES, "unpriced_models"} for row in rows)
    assert [sum(row[name] for row in rows) for name in ("turns", "input_tokens", "output_tokens", "tool_calls")] == [
        6, 1657, 72, 8
    ]  # fmt: skip
    assert sum(row["cache_read_input_tokens"] for row in rows) == len(USED)
    assert sum(row["cache_write_input_tokens"] for row in rows) == 2 * len(USED)
    assert all(type(row[name]) is int for row in rows for name in set(MEASURES) - set(COSTS))
    names = [tuple(row[name] for name in DIMENSIONS[by]) for row in rows]
    assert len(names) == len(set(names))


def test_days_stand_in_their_order_and_others_by_tokens(marts: Path) -> None:
    assert [row["day"] for row in usage.usage(marts, "day")] == ["2026-03-01", "2026-03-02", "2026-03-03"]
    assert [row["model"] for row in usage.usage(marts, "model")] == ["m1", "m2", "unknown"]
    both = usage.usage(marts, "tenant and model")
    assert [(row["tenant"], row["model"]) for row in both] == [
        ("acme", "m2"), ("acme", "m1"), ("bolt", "m1"), ("bolt", "unknown")
    ]  # fmt: skip


def test_rows_with_the_same_tokens_stand_in_a_fixed_order(tmp_path: Path) -> None:
    (tmp_path / "current").mkdir()
    same = [("acme", "ada", None, f"s{n}", "queen", f"m{n}", MARCH[0], 1, 5, 5, 0, 1, None) for n in (3, 1, 2)]
    fill(tmp_path, same)
    assert [row["model"] for row in usage.usage(tmp_path, "model")] == ["m1", "m2", "m3"]
    assert [row["session"] for row in usage.usage(tmp_path, "session")] == ["s1", "s2", "s3"]


def test_cost_is_exact_and_unreported_is_not_free(marts: Path) -> None:
    rows = {(row["tenant"], row["model"]): row for row in usage.usage(marts, "tenant and model")}
    assert rows["acme", "m1"]["reported_cost_usd"] == "0.30000000000000000001"
    assert rows["bolt", "m1"]["reported_cost_usd"] == "1000000000000000.00000000000000000001"
    assert rows["acme", "m2"]["reported_cost_usd"] is None
    assert rows["acme", "m2"]["unreported_turns"] == 2
    (whole,) = [row for row in usage.usage(marts, "model") if row["model"] == "m1"]
    assert whole["reported_cost_usd"] == "1000000000000000.30000000000000000002"


def test_what_the_book_says_stands_beside_what_was_reported(marts: Path) -> None:
    rows = {(row["tenant"], row["model"]): row for row in usage.usage(marts, "tenant and model")}
    assert rows["acme", "m1"]["rated_cost_usd"] == "0.20000000000000000003"
    assert rows["bolt", "m1"]["rated_cost_usd"] == "7"
    assert rows["acme", "m2"]["rated_cost_usd"] is None
    assert (rows["acme", "m2"]["unpriced_tokens"], rows["acme", "m2"]["unpriced_models"]) == (550, ["m2"])
    assert rows["acme", "m1"]["unpriced_models"] == []
    assert {row["kind"]: row["rated_cost_usd"] for row in usage.usage(marts, "kind")} == {
        "queen": "7.20000000000000000003", "worker": None, "other": None
    }  # fmt: skip


def test_a_colony_is_named_by_its_tenant_s_own_list(marts: Path) -> None:
    rows = {(row["tenant"], row["colony_id"]): row for row in usage.usage(marts, "colony")}
    assert {key: row["colony"] for key, row in rows.items()} == {
        ("acme", "c1"): "x", ("bolt", "c1"): "y", ("acme", "c9"): None, ("acme", None): None, ("bolt", None): None
    }  # fmt: skip
    assert rows["acme", "c1"]["turns"] == 3
    assert rows["acme", "c9"]["turns"] == 1


def test_both_ends_of_the_days_are_included(marts: Path) -> None:
    def days(**between: date) -> list[str]:
        return [row["day"] for row in usage.usage(marts, "day", **between)]

    assert days(first_day=MARCH[1]) == ["2026-03-02", "2026-03-03"]
    assert days(last_day=MARCH[1]) == ["2026-03-01", "2026-03-02"]
    assert days(first_day=MARCH[1], last_day=MARCH[1]) == ["2026-03-02"]
    assert days(first_day=MARCH[2], last_day=MARCH[0]) == []


def test_no_usage_is_no_row(tmp_path: Path) -> None:
    (tmp_path / "current").mkdir()
    fill(tmp_path, [])
    assert [usage.usage(tmp_path, by) for by in DIMENSIONS] == [[]] * len(DIMENSIONS)


def test_the_three_billing_models_side_by_side(tmp_path: Path) -> None:
    (tmp_path / "current").mkdir()
    with duckdb.connect(str(tmp_path / "current" / "marts.duckdb")) as connection:
        connection.execute(
            """
            CREATE TABLE mart_billing_model_comparison AS
            SELECT
                account AS billing_account_id, DATE '2026-10-01' AS billing_month, 'EUR' AS currency,
                amount::DECIMAL(38, 15) AS per_token_amount, 40::DECIMAL(38, 15) AS per_seat_amount,
                NULL::DECIMAL(38, 15) AS per_colony_day_amount, 7::BIGINT AS unpriced_tokens
            FROM (VALUES ('b', '0.000000000000001'), ('a', '12345678901234567890.5')) AS made (account, amount)
            """
        )
    same = {"month": "2026-10", "currency": "EUR", "by_seats": 40, "by_colony_days": None, "unpriced_tokens": 7}
    assert usage.billing_models(tmp_path) == [
        same | {"account": "a", "by_tokens": Decimal("12345678901234567890.5")},
        same | {"account": "b", "by_tokens": Decimal("0.000000000000001")},
    ]
