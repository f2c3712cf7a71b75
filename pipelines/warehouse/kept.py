"""What stays of erased usage: sums of the rated lines by tenant, UTC day, model and component.

What was counted before is what is counted now and these sums. They name neither user nor session nor device, and lie in
the store: a warehouse that is rebuilt has them too. Does not belong here: erasing (erase.py), publishing them
(models/analytics/billing/agg_erased_usage_daily.sql).
"""

import json
from collections.abc import Collection
from datetime import date
from decimal import Decimal
from typing import Any

import duckdb

from pipelines.contract.numbers import plain
from pipelines.store import Store

ROOT = "suppressions/v1/kept/"
NAMES = ("tenant_id", "model", "charge_class", "unit", "unpriced_turns", "quantity", "usage_date")
Row = dict[str, Any]


def is_current(connection: duckdb.DuckDBPyConnection, tenants: Collection[str]) -> bool:
    """Whether the rated lines of this warehouse count every turn and step that its wire holds of these tenants.

    Not so if a run loaded and did not come to build: the difference of two builds would take off what came since.
    """
    newer = connection.execute(
        """
        SELECT 1 FROM (
            SELECT tenant_id, _ingest_seq FROM wire.llm_turns
            UNION ALL SELECT tenant_id, _ingest_seq FROM wire.node_steps
        )
        WHERE list_contains(?, tenant_id)
            AND _ingest_seq > (SELECT coalesce(max(_ingest_seq), -1) FROM marts.fct_llm_turns)
        LIMIT 1
        """,
        [sorted(tenants)],
    ).fetchall()
    return not newer


def difference(connection: duckdb.DuckDBPyConnection, tenants: Collection[str]) -> list[Row]:
    """What the rated lines of `old` count beyond those of this warehouse, which were built without the erased.

    Less than nothing where steps count again because the events that had taken them back are gone.
    """
    lines = f"{_lines('old.marts.fct_rated_lines')} UNION ALL {_lines('marts.fct_rated_lines', '-')}"
    return _sums(connection, tenants, lines)


def turns_gone(connection: duckdb.DuckDBPyConnection, tenants: Collection[str]) -> list[Row]:
    """Where two builds cannot be compared: the rated lines of `old` of whose turn no record is left.

    Steps that would count again, because the events that had taken them back are gone, are not told.
    """
    lines = f"""
        {_lines("old.marts.fct_rated_lines")} WHERE (tenant_id, record_id) NOT IN (
            SELECT (tenant_id, record_id) FROM wire.llm_turns
            UNION ALL SELECT (tenant_id, record_id) FROM wire.node_steps
        )
    """
    return _sums(connection, tenants, lines)


def _lines(table: str, sign: str = "") -> str:
    """A query for what rated lines count. Each turn has one line of its output, which holds its reported cost too."""
    return f"""
        SELECT tenant_id, model, component, {sign}quantity AS quantity, {sign}reported_cost_usd AS reported_cost_usd,
            CASE WHEN component = 'output' THEN {sign}1 ELSE 0 END AS turns, usage_date
        FROM {table}
    """


def _sums(connection: duckdb.DuckDBPyConnection, tenants: Collection[str], lines: str) -> list[Row]:
    """Sums of lines, less what is kept in this warehouse already and was not in `old`, by a try that was cut off.

    A keyed name of a model was chosen by a person and is not kept; a public one was not, and prices hang on it.
    """
    found = connection.execute(
        f"""
        WITH lines AS ({lines}),
        amounts AS (
            SELECT tenant_id, model, component AS charge_class, 'tokens' AS unit, 0 AS unpriced_turns,
                cast(quantity AS DECIMAL(38, 20)) AS quantity, usage_date
            FROM lines
            UNION ALL
            SELECT tenant_id, model, 'reported_cost', 'usd', CASE WHEN reported_cost_usd IS NULL THEN turns ELSE 0 END,
                reported_cost_usd, usage_date
            FROM lines WHERE turns <> 0
            UNION ALL
            SELECT tenant_id, model, charge_class, unit, -unpriced_turns, -quantity, usage_date
            FROM wire.kept_charges WHERE _kept_name NOT IN (SELECT _kept_name FROM old.wire.kept_charges)
        )
        SELECT tenant_id, CASE WHEN starts_with(model, 'k1_') THEN 'unknown' ELSE model END AS model, charge_class,
            unit, cast(sum(unpriced_turns) AS BIGINT) AS unpriced_turns, sum(quantity) AS quantity, usage_date
        FROM amounts
        WHERE list_contains(?, tenant_id)
        GROUP BY ALL HAVING sum(quantity) <> 0 OR sum(unpriced_turns) <> 0
        ORDER BY ALL
        """,
        [sorted(tenants)],
    ).fetchall()
    return [dict(zip(NAMES, row, strict=True)) for row in found]


def put(store: Store, name: str, rows: list[Row]) -> None:
    """Keep sums under a name, which is used once: another try of the same erasure keeps what the first one found."""
    lines = [
        row
        | {
            "quantity": None if row["quantity"] is None else plain(row["quantity"]),
            "usage_date": row["usage_date"].isoformat(),
        }
        for row in rows
    ]
    store.put(f"{ROOT}{name}.json", json.dumps(lines, sort_keys=True, separators=(",", ":")).encode())


def restore(connection: duckdb.DuckDBPyConnection, store: Store) -> None:
    """Bring every sum of the store into the warehouse that is not there yet. Raises StoreUnavailableError."""
    have = {name for (name,) in connection.execute("SELECT DISTINCT _kept_name FROM wire.kept_charges").fetchall()}
    for entry in store.list(ROOT):
        name = entry.key.removeprefix(ROOT).removesuffix(".json")
        if name in have:
            continue
        rows = [
            [name, *(_typed(column, line[column]) for column in NAMES)] for line in json.loads(store.get(entry.key))
        ]
        if rows:
            marks = ", ".join("?" * len(NAMES))
            connection.executemany(
                f"INSERT INTO wire.kept_charges (_kept_name, {', '.join(NAMES)}) VALUES (?, {marks})", rows
            )


def _typed(column: str, value: Any) -> Any:
    if column == "usage_date":
        return date.fromisoformat(value)
    return Decimal(value) if column == "quantity" and value is not None else value
