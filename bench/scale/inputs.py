"""What models read, as Parquet: the tables that gate, ledger and load filled, the books, the seeds, and other models.

Does not belong here: what admits a batch (pipelines/warehouse/load.py); another engine reads its rows as they were
admitted.
"""

from collections.abc import Collection
from pathlib import Path

import duckdb

SCHEMAS = ("wire", "billing", "operation", "seeds")


def export(warehouse: Path, folder: Path, relations: Collection[str] = ()) -> dict[str, int]:
    """A folder `schema/table` of Parquet for each of these relations, or of SCHEMAS if none is named; rows by relation.

    Raises duckdb.Error.
    """
    rows = {}
    with duckdb.connect(str(warehouse)) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        found = connection.execute(
            "SELECT table_schema, table_name FROM information_schema.tables ORDER BY ALL"
        ).fetchall()
        for schema, table in found:
            if not (f"{schema}.{table}" in relations if relations else schema in SCHEMAS):
                continue
            target = folder / schema / table
            target.mkdir(parents=True)
            copied = connection.execute(
                f"COPY {schema}.{table} TO '{target / 'rows.parquet'}' (FORMAT parquet, COMPRESSION zstd)"
            ).fetchone()
            rows[f"{schema}.{table}"] = int(copied[0]) if copied else 0
    return rows
