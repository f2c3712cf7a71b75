"""Opens the warehouse of a home: its DuckDB file, or the DuckLake of the settings (`APIARY_ENGINE`).

What is no warehouse (a copy to try something on, published data) is a file on every engine and not opened here.
Does not belong here: how a DuckLake is attached (ducklake.py), how dbt connects (dbt_project/profiles.yml).
"""

from pathlib import Path

import duckdb

from pipelines import engine
from pipelines.engine import Engine
from pipelines.warehouse import ducklake


def connect(file: Path, *, read_only: bool = False) -> duckdb.DuckDBPyConnection:
    """The warehouse. On DuckLake the file names nothing but the folder of what lies beside it.

    A file that is read only may be open in several processes at once; a DuckLake always may. Raises duckdb.Error,
    DuckLakeError, EngineError.
    """
    if is_ducklake():
        return ducklake.connect()
    engine.require(Engine.DUCKDB)
    return duckdb.connect(str(file), read_only=read_only)


def exists(file: Path) -> bool:
    """Whether there is a warehouse, made by a first run. Raises duckdb.Error, DuckLakeError, EngineError."""
    if not is_ducklake():
        return file.exists()
    with connect(file) as connection:
        found = connection.execute(
            "SELECT 1 FROM duckdb_schemas() WHERE database_name = ? AND schema_name = 'wire'", [ducklake.NAME]
        )
        return found.fetchone() is not None


def is_ducklake() -> bool:
    """Whether the warehouse is a DuckLake. Raises EngineError."""
    return engine.selected() is Engine.DUCKLAKE
