"""What stays of erased usage: sums by tenant, model, charge class and UTC day, so that what was billed adds up.

They name neither user nor session nor device, and lie in the store: a warehouse that is rebuilt has them too.
Does not belong here: erasing (erase.py), what a bill makes of them (models/statements).
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

# A keyed name was chosen by a person; a public one was not, and prices hang on it. Bills name the turns without a
# reported cost `unreported_turns`; those of an earlier release, and what was kept, `unpriced_turns`.
_BILLED = """
    SELECT tenant_id, CASE WHEN model LIKE 'k1\\_%' ESCAPE '\\' THEN 'unknown' ELSE model END AS model, charge_class,
        unit, usage_date, COLUMNS('^un(priced|reported)_turns$') AS unpriced_turns, quantity
"""
_SUMS = """
    SELECT tenant_id, model, charge_class, unit, cast(sum(unpriced_turns) AS BIGINT) AS unpriced_turns,
        sum(quantity) AS quantity, usage_date
"""


def difference(connection: duckdb.DuckDBPyConnection, tenants: Collection[str]) -> list[Row]:
    """What the bills of `old` hold beyond those of this warehouse, which were built without the erased.

    Less than nothing where steps count again because the events that had taken them back are gone.
    """
    found = connection.execute(
        f"""
        {_SUMS}
        FROM (
            {_BILLED} FROM old.marts.mart_daily_billing
            UNION ALL BY NAME
            SELECT * REPLACE (-unpriced_turns AS unpriced_turns, -quantity AS quantity)
            FROM ({_BILLED} FROM marts.mart_daily_billing)
        )
        WHERE list_contains(?, tenant_id)
        GROUP BY ALL HAVING sum(quantity) <> 0 OR sum(unpriced_turns) <> 0
        ORDER BY ALL
        """,
        [sorted(tenants)],
    ).fetchall()
    return [dict(zip(NAMES, row, strict=True)) for row in found]


def turns_gone(connection: duckdb.DuckDBPyConnection, tenants: Collection[str]) -> list[Row]:
    """Where the bills cannot be built: the amounts of turns of `old` of which no record is left, by the same classes.

    Less what is kept in this warehouse already and was not in `old`, by a try that was cut off. Steps that would count
    again, because the events that had taken them back are gone, are not told.
    """
    found = connection.execute(
        f"""
        WITH gone AS (
            SELECT *, least(cache_read_input_tokens, input_tokens) AS read_tokens,
                least(cache_write_input_tokens, input_tokens - least(cache_read_input_tokens, input_tokens))
                    AS write_tokens
            FROM old.marts.fct_llm_turns
            WHERE (tenant_id, turn_id) NOT IN (
                SELECT (tenant_id, record_id) FROM wire.llm_turns
                UNION ALL SELECT (tenant_id, record_id) FROM wire.node_steps
            )
        ),
        billed AS (
            SELECT tenant_id, model, usage_date, unnest([
                {{'charge_class': 'input_uncached', 'unit': 'tokens', 'unpriced_turns': 0,
                  'quantity': cast(input_tokens - read_tokens - write_tokens AS DECIMAL(38, 20))}},
                {{'charge_class': 'cache_read', 'unit': 'tokens', 'unpriced_turns': 0,
                  'quantity': cast(read_tokens AS DECIMAL(38, 20))}},
                {{'charge_class': 'cache_write', 'unit': 'tokens', 'unpriced_turns': 0,
                  'quantity': cast(write_tokens AS DECIMAL(38, 20))}},
                {{'charge_class': 'output', 'unit': 'tokens', 'unpriced_turns': 0,
                  'quantity': cast(output_tokens AS DECIMAL(38, 20))}},
                {{'charge_class': 'reported_cost', 'unit': 'usd',
                  'unpriced_turns': cast(reported_cost_usd IS NULL AS INTEGER),
                  'quantity': cast(reported_cost_usd AS DECIMAL(38, 20))}}
            ], recursive := true)
            FROM gone
        ),
        tried AS (
            FROM wire.kept_charges WHERE _kept_name NOT IN (SELECT _kept_name FROM old.wire.kept_charges)
        )
        {_SUMS}
        FROM (
            {_BILLED} FROM billed
            UNION ALL BY NAME
            SELECT * REPLACE (-unpriced_turns AS unpriced_turns, -quantity AS quantity) FROM ({_BILLED} FROM tried)
        )
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
        row | {"quantity": None if row["quantity"] is None else plain(row["quantity"]),
               "usage_date": row["usage_date"].isoformat()}
        for row in rows
    ]  # fmt: skip
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
