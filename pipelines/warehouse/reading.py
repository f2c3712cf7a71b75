"""Opening published data: the engine may read that one file and nothing else of this machine or the network.

Whoever types SQL here may be careless or hostile; the engine itself would read any file and fetch any address.
Does not belong here: what is published (publish.py), what is asked of it (usage.py).
"""

from pathlib import Path

import duckdb

from pipelines.errors import ExpectedError

# `lock_configuration` must be set with the others or after them: what is set later could otherwise undo it.
SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "allow_unsigned_extensions": "false",
    "enable_external_access": "false",
    "lock_configuration": "true",
}


class NothingPublishedError(ExpectedError):
    """There is no published data to read."""


def open_published(file: Path) -> duckdb.DuckDBPyConnection:
    """A read-only connection to one published DuckDB file, without files, network, extensions or other databases.

    Raises NothingPublishedError.
    """
    if not file.exists():
        raise NothingPublishedError(f"there is no published data under {file.parent}: run `apiary run` first")
    return duckdb.connect(str(file.resolve()), read_only=True, config=SETTINGS)


def connect(published: Path) -> duckdb.DuckDBPyConnection:
    """All published marts. Raises NothingPublishedError."""
    return open_published(published / "current" / "marts.duckdb")
