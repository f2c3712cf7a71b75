"""Opens the warehouse of a home: its DuckDB file, or the DuckLake of the settings (`APIARY_ENGINE`).

What is no warehouse (a copy to try something on, published data) is a file on every engine and not opened here.
Does not belong here: how a DuckLake is attached (ducklake.py), how dbt connects (dbt_project/profiles.yml).
"""

import os
from collections.abc import Mapping
from pathlib import Path

import duckdb

from pipelines import engine
from pipelines.engine import Engine
from pipelines.errors import UsageError
from pipelines.warehouse import ducklake

MEMORY_LIMIT = "APIARY_MEMORY_LIMIT"
MOST_MEMORY = 8 << 30


def memory_limit(environment: Mapping[str, str] = os.environ) -> str:
    """What the engine may use of memory, unless the setting says otherwise: 8 GiB, or four fifths of the machine's if
    that is less. The rest is spilled to the disk beside the warehouse. DuckDB's own limit is four fifths, for each
    process."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return environment.get(MEMORY_LIMIT) or f"{min(MOST_MEMORY, machine * 4 // 5) >> 20}MiB"


def limit(connection: duckdb.DuckDBPyConnection) -> None:
    """Give an open warehouse its limit of memory. Raises UsageError."""
    said = memory_limit()
    try:
        connection.execute(f"SET memory_limit = '{ducklake.quoted(said)}'")
    except (duckdb.ParserException, duckdb.InvalidInputException):
        raise UsageError(f"{MEMORY_LIMIT} is {said!r}: say a size such as 6GiB") from None


def connect(file: Path, *, read_only: bool = False) -> duckdb.DuckDBPyConnection:
    """The warehouse. On DuckLake the file names nothing but the folder of what lies beside it.

    A file that is read only may be open in several processes at once; a DuckLake always may. Raises duckdb.Error,
    DuckLakeError, EngineError, UsageError.
    """
    if is_ducklake():
        connection = ducklake.connect()
        connection.execute(f"SET temp_directory = '{ducklake.quoted(str(file))}.tmp'")
    else:
        engine.require(Engine.DUCKDB)
        connection = duckdb.connect(str(file), read_only=read_only)
    limit(connection)
    return connection


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
