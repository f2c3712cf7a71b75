"""What the models read, as Parquet: the tables that gate, ledger and load filled, the books, and the seeds.

Does not belong here: what admits a batch (pipelines/warehouse/load.py); another engine reads its rows as they were
admitted.
"""

from pathlib import Path

import duckdb

SCHEMAS = ("wire", "billing", "operation", "seeds")


def export(warehouse: Path, folder: Path) -> dict[str, int]:
    """A folder `schema/table` of Parquet for each table; rows by table. Raises duckdb.Error."""
    rows = {}
    with duckdb.connect(str(warehouse)) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        tables = connection.execute(
            "SELECT schema_name, table_name FROM duckdb_tables() WHERE schema_name IN ? ORDER BY ALL", [list(SCHEMAS)]
        ).fetchall()
        for schema, table in tables:
            target = folder / schema / table
            target.mkdir(parents=True)
            copied = connection.execute(
                f"COPY {schema}.{table} TO '{target / 'rows.parquet'}' (FORMAT parquet, COMPRESSION zstd)"
            ).fetchone()
            rows[f"{schema}.{table}"] = int(copied[0]) if copied else 0
    return rows
