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
    """Whether there is a warehouse. A DuckLake is made by whoever opens it first. Raises EngineError."""
    return is_ducklake() or file.exists()


def is_ducklake() -> bool:
    """Whether the warehouse is a DuckLake. Raises EngineError."""
    return engine.selected() is Engine.DUCKLAKE
