"""How many rows a model may make of one: a row that spans two centuries must not become one for each of its days.

Does not belong here: the budgets (`max_rows_per_input_row` in the models' meta), whose rows exceed one (isolation.py).
"""

from collections.abc import Mapping, Sequence

import duckdb

from pipelines.contract.wire import BY_NAME

STANDING = 20_000
"""Rows that a model may have of a tenant without any usage: days of a budget, months of a plan."""


def exceeded(connection: duckdb.DuckDBPyConnection, budgets: Mapping[str, int]) -> list[str]:
    """Models with more rows of one tenant than its rows of the wire allow, by name.

    `budgets`: rows out for each row in, by `schema.table`. What is no table here is passed over, and so is a table that
    knows no tenant: it is made of books that are shipped or signed, as large as those are.
    """
    union = " UNION ALL ".join(
        f"SELECT tenant_id, count(*) AS rows_in FROM wire.{name} GROUP BY ALL" for name in BY_NAME
    )
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE rows_in AS SELECT tenant_id, sum(rows_in) AS rows_in FROM ({union}) GROUP BY ALL"
    )
    tables = connection.execute(
        "SELECT tables.schema_name || '.' || tables.table_name FROM duckdb_tables() AS tables"
        " JOIN duckdb_columns() USING (database_name, schema_name, table_name)"
        " WHERE database_name = current_database() AND column_name = 'tenant_id' ORDER BY ALL"
    ).fetchall()
    found = []
    for (table,) in tables:
        if table not in budgets:
            continue
        over = connection.execute(
            f"""
            SELECT 1 FROM (SELECT tenant_id, count(*) AS rows_out FROM {table} GROUP BY ALL) AS built
            LEFT JOIN rows_in USING (tenant_id)
            WHERE rows_out > $standing + $budget * coalesce(rows_in, 0)
            """,
            {"budget": budgets[table], "standing": STANDING},
        ).fetchone()
        if over:
            found.append(table)
    connection.execute("DROP TABLE rows_in")
    return found


def row_counts(connection: duckdb.DuckDBPyConnection, schemas: Sequence[str]) -> dict[tuple[str, str], int]:
    """Rows of each table of some schemas, by schema and table; views are not counted."""
    tables = connection.execute(
        "SELECT schema_name, table_name FROM duckdb_tables() WHERE list_contains($schemas, schema_name) ORDER BY ALL",
        {"schemas": list(schemas)},
    ).fetchall()
    if not tables:
        return {}
    counted = " UNION ALL ".join(
        f"SELECT '{schema}', '{table}', count(*) FROM {schema}.{table}" for schema, table in tables
    )
    return {(schema, table): int(rows) for schema, table, rows in connection.execute(counted).fetchall()}
