"""A PostgreSQL for the catalogs of DuckLakes, started and stopped here, and what else a DuckLake needs.

Does not belong here: what is kept in it (ducklake_build.py).
"""

import os
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path

from deploy.services import Services, postgres_programs, start_postgres
from pipelines.home import private_folder
from pipelines.warehouse import ducklake


def missing() -> str | None:
    """What a DuckLake lacks on this machine, and what to do; None if it lacks nothing."""
    if postgres_programs() is None:
        return "skipped: DuckLake needs PostgreSQL: install it (Debian: postgresql)"
    if any(find_spec(f"duckdb_extension_{name}") is None for name in ducklake.EXTENSIONS):
        return "skipped: DuckLake needs its extensions: run make test-scale or make scale"
    return None


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """The address of a server of its own, whose data lie in a folder. Raises ServiceError."""
    programs = postgres_programs()
    assert programs is not None
    private_folder(folder)
    for parent in (folder, *folder.parents):  # as root it is another user's process, which has to get there
        if parent.stat().st_uid == os.geteuid() and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)
    with closing(socket.socket()) as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    services = Services(private_folder(folder / "services"), dict(os.environ) | {"APIARY_POSTGRES_PORT": str(port)})
    try:
        start_postgres(services, programs)
        yield services.settings["APIARY_DAGSTER_POSTGRES"].rpartition("/")[0]
    finally:
        services.stop()


def new_lake(address: str, name: str, folder: Path) -> dict[str, str]:
    """The settings of a new DuckLake, whose catalog is a database of its own."""
    import psycopg2

    with closing(psycopg2.connect(f"{address}/postgres")) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name}")
    return {ducklake.CATALOG: f"{address}/{name}", ducklake.DATA: str(folder)}
