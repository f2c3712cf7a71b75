"""Usage by one dimension, from the published marts: what `apiary usage` prints.

Does not belong here: printing (pipelines/commands), counting (models/).
"""

from datetime import date, datetime
from pathlib import Path
from typing import Any

import duckdb

from pipelines.contract.numbers import plain
from pipelines.warehouse.reading import connect

# What a row is named by: the column's name in the answer -> its expression over USED.
DIMENSIONS: dict[str, dict[str, str]] = {
    "model": {"model": "model"},
    "tenant": {"tenant": "tenant_id"},
    "user": {"user": "user_id", "tenant": "tenant_id"},
    "colony": {"colony": "colony_name", "colony_id": "colony_id", "tenant": "tenant_id"},
    "session": {"session": "session_id", "tenant": "tenant_id"},
    "agent": {"agent": "coalesce(agent_id, 'unknown')", "tenant": "tenant_id"},
    "kind": {"kind": "agent_kind"},
    "runtime": {"runtime": "agent_runtime"},
    "day": {"day": "usage_date"},
    "tenant and model": {"tenant": "tenant_id", "model": "model", "runtime": "agent_runtime"},
}
SESSIONS = """
            LEFT JOIN (SELECT tenant_id, session_id, agent_id FROM dim_sessions) AS sessions
                USING (tenant_id, session_id)
"""
TOKENS = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_write_input_tokens")
COSTS = ("reported_cost_usd", "rated_cost_usd", "rated_cost_low_usd", "rated_cost_high_usd")
COUNTS = ("turns", *TOKENS, "tool_calls", "unreported_turns", "unpriced_turns", "unpriced_tokens")
MEASURES = (*COUNTS, *COSTS)


def usage(
    published: Path, by: str, *, first_day: date | None = None, last_day: date | None = None
) -> list[dict[str, Any]]:
    """Rows of usage by one dimension (UTC days, both ends included), most tokens first; days in their order.

    Counts are integers, costs exact decimal texts: `reported_cost_usd` is what the agents said, None where they said
    nothing; `rated_cost_usd` is the price book's list price, with the least and the most that it may be, None where the
    book has none. It is of all tokens but `unpriced_tokens`, which are of `unpriced_models`.
    """
    names = DIMENSIONS[by]
    selected = ", ".join(f"{expression} AS {name}" for name, expression in names.items())
    sums = ", ".join(f"sum({measure}) AS {measure}" for measure in MEASURES)
    most = "sum(input_tokens) + sum(output_tokens) DESC"
    order = {"day": "day", "tenant and model": f"tenant, {most}, model, runtime"}.get(by, f"{most}, {', '.join(names)}")
    with connect(published) as connection:
        cursor = connection.execute(
            f"""
            SELECT {selected}, {sums},
                coalesce(list_sort(list(DISTINCT model) FILTER (WHERE unpriced_tokens > 0)), []) AS unpriced_models
            FROM agg_usage_session_daily AS used
            LEFT JOIN (SELECT tenant_id, colony_id, colony_name FROM dim_colonies) AS colonies
                USING (tenant_id, colony_id)
            {SESSIONS if by == "agent" else ""}
            WHERE ($first IS NULL OR usage_date >= $first) AND ($last IS NULL OR usage_date <= $last)
            GROUP BY {", ".join(map(str, range(1, len(names) + 1)))}
            ORDER BY {order}
            """,
            {"first": first_day, "last": last_day},
        )
        return [_row(row) for row in _rows(cursor)]


def collapsed(published: Path) -> list[dict[str, Any]]:
    """Raw usage lines by tenant and how many of them were copies."""
    with connect(published) as connection:
        cursor = connection.execute("SELECT * FROM mart_dedupe_ledger ORDER BY tenant_id")
        return _rows(cursor)


def billing_models(published: Path) -> list[dict[str, Any]]:
    """What each account would pay for a month by tokens, by seats and by colony days; None if unpriced."""
    with connect(published) as connection:
        cursor = connection.execute(
            """
            SELECT
                billing_account_id AS account, left(billing_month::VARCHAR, 7) AS month, currency,
                per_token_amount AS by_tokens, per_seat_amount AS by_seats,
                per_colony_day_amount AS by_colony_days, unpriced_tokens
            FROM mart_billing_model_comparison
            ORDER BY account, month
            """
        )
        return _rows(cursor)


def _rows(cursor: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    columns = [column[0] for column in cursor.description]
    return [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]


def _row(row: dict[str, Any]) -> dict[str, Any]:
    for name, value in row.items():
        if name in COSTS:
            row[name] = None if value is None else plain(value)
        elif name in COUNTS:
            row[name] = int(value or 0)
        elif isinstance(value, (date, datetime)):
            row[name] = value.isoformat()
    return row
