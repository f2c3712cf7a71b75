"""How many rows a model may make of one: a row that spans two centuries must not become one for each of its days.

Does not belong here: the budgets (`max_rows_per_input_row` in the models' meta), whose rows exceed one (isolation.py).
"""

from collections.abc import Mapping

import duckdb

from pipelines.contract.wire import BY_NAME

STANDING = 20_000
"""Rows that a model may have of no usage at all: price sheets, days of a budget, months of a plan."""


def exceeded(connection: duckdb.DuckDBPyConnection, budgets: Mapping[str, int]) -> list[str]:
    """Models with more rows of one tenant than its rows of the wire allow, by name.

    `budgets`: rows out for each row in, by `schema.table`; what is no table here is passed over.
    """
    union = " UNION ALL ".join(
        f"SELECT tenant_id, count(*) AS rows_in FROM wire.{name} GROUP BY ALL" for name in BY_NAME
    )
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE rows_in AS SELECT tenant_id, sum(rows_in) AS rows_in FROM ({union}) GROUP BY ALL"
    )
    tables = connection.execute(
        "SELECT tables.schema_name || '.' || tables.table_name, bool_or(column_name = 'tenant_id')"
        " FROM duckdb_tables() AS tables JOIN duckdb_columns() USING (database_name, schema_name, table_name)"
        " WHERE database_name = current_database() GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    found = []
    for table, has_tenant in tables:
        if table not in budgets:
            continue
        whose = "tenant_id" if has_tenant else "NULL AS tenant_id"
        over = connection.execute(
            f"""
            SELECT 1 FROM (SELECT {whose}, count(*) AS rows_out FROM {table} GROUP BY ALL) AS built
            WHERE rows_out > $standing + $budget * (
                SELECT coalesce(sum(rows_in), 0) FROM rows_in
                WHERE built.tenant_id IS NULL OR rows_in.tenant_id = built.tenant_id
            )
            """,
            {"budget": budgets[table], "standing": STANDING},
        ).fetchone()
        if over:
            found.append(table)
    connection.execute("DROP TABLE rows_in")
    return found
