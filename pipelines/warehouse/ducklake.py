"""The warehouse as a DuckLake: tables are Parquet in a folder or in object storage, their catalog is in PostgreSQL.

Several machines write. It has snapshot isolation and no primary keys: whoever writes rows of the wire changes the one
row of `wire.load_sequence`, and of two such transactions at once the second fails when it commits, and begins again.
Does not belong here: what a load writes (load.py), how dbt connects (ducklake_dbt.py).
"""

import os
import random
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import duckdb

from pipelines.contract.ddl import PRESENT, create_wire, widen_wire
from pipelines.errors import ExpectedError

CATALOG = "APIARY_DUCKLAKE_CATALOG"
DATA = "APIARY_DUCKLAKE_DATA"
NAME = "lake"
"""The name under which it is attached."""
EXTENSIONS = ("ducklake", "postgres_scanner")
GUESSING = "join_order"
"""What DuckDB does by counts of distinct values, which a DuckLake does not keep: it took a tenant for something rare,
and joined millions of rows by it alone before a third table named the session. Joins are made as a query names them."""
# What DuckLake says when another transaction committed in between; the rest is its catalog's word for the same.
CONFLICT = re.compile(
    r"DuckLake transaction.*(Transaction conflict|maximum retry count|could not serialize)", re.DOTALL
)
AT_ONCE = re.compile(r"duplicate key|already exists|could not serialize|tuple concurrently")
ATTEMPTS_TO_ATTACH = 20
ATTEMPTS = 1_000  # somebody else's transaction was committed each time: that many is no conflict
LONGEST_PAUSE_SECONDS = 1.0
T = TypeVar("T")


class DuckLakeError(ExpectedError):
    """The settings, the extensions or the catalog are not there."""


def is_ducklake(connection: duckdb.DuckDBPyConnection) -> bool:
    """Whether what the connection uses is a DuckLake."""
    found = connection.execute("SELECT type FROM duckdb_databases() WHERE database_name = current_database()")
    return found.fetchone() == ("ducklake",)


def snapshot(connection: duckdb.DuckDBPyConnection) -> int:
    """The number of its latest state: each transaction that changed something has made one."""
    found = connection.execute(f"SELECT max(snapshot_id) FROM ducklake_snapshots('{NAME}')").fetchone()
    assert found is not None  # noqa: S101 - an aggregate has a row
    return int(found[0])


def connect(environment: Mapping[str, str] = os.environ) -> duckdb.DuckDBPyConnection:
    """A connection that uses the DuckLake of the settings, in UTC. Raises DuckLakeError."""
    connection = duckdb.connect()
    attach(connection, environment)
    connection.execute(f"USE {NAME}")
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def attach(
    connection: duckdb.DuckDBPyConnection, environment: Mapping[str, str] = os.environ, *, name: str = NAME
) -> None:
    """Attach the DuckLake of the settings under a name; the first time makes it. Raises DuckLakeError."""
    catalog, data = environment.get(CATALOG), environment.get(DATA)
    if not catalog or not data:
        missing = CATALOG if not catalog else DATA
        raise DuckLakeError(
            f"{missing} is not set: a DuckLake is a PostgreSQL database, and a folder or s3://BUCKET/PREFIX"
        )
    for extension in EXTENSIONS:
        connection.execute(f"LOAD '{_extension(extension)}'")
    if data.startswith("s3://"):
        _open_object_storage(connection, environment)
    statement = (
        f"ATTACH IF NOT EXISTS '{quoted(f'ducklake:postgres:{catalog}')}' AS {name}"
        f" (DATA_PATH '{quoted(data.rstrip('/'))}/')"
    )
    for attempt in range(1, ATTEMPTS_TO_ATTACH + 1):
        try:
            connection.execute(statement)
            connection.execute(f"SET disabled_optimizers = '{GUESSING}'")
            return
        except duckdb.Error as error:
            # Several that make its catalog at once get into each other's way.
            if attempt < ATTEMPTS_TO_ATTACH and AT_ONCE.search(str(error)):
                _pause(attempt)
                continue
            # The error repeats the address, with its password.
            said = str(error).replace(catalog, CATALOG).splitlines()[0]
            raise DuckLakeError(f"the DuckLake could not be attached: {said}") from None


def _open_object_storage(connection: duckdb.DuckDBPyConnection, environment: Mapping[str, str]) -> None:
    """Let the connection read and write object storage, with what boto3 finds now. Raises DuckLakeError."""
    import boto3

    session = boto3.Session(
        aws_access_key_id=environment.get("AWS_ACCESS_KEY_ID"),
        aws_secret_access_key=environment.get("AWS_SECRET_ACCESS_KEY"),
        aws_session_token=environment.get("AWS_SESSION_TOKEN"),
        region_name=environment.get("AWS_DEFAULT_REGION"),
    )
    found = session.get_credentials()
    if found is None:
        raise DuckLakeError(f"{DATA} is object storage and there are no credentials for it: set AWS_ACCESS_KEY_ID")
    key = found.get_frozen_credentials()
    said = {"KEY_ID": key.access_key, "SECRET": key.secret_key, "SESSION_TOKEN": key.token}
    said |= {"REGION": session.region_name}
    endpoint = urlsplit(environment.get("AWS_ENDPOINT_URL", ""))
    if endpoint.netloc:
        said |= {"ENDPOINT": endpoint.netloc, "URL_STYLE": "path", "USE_SSL": str(endpoint.scheme == "https")}
    listed = "".join(f", {name} '{quoted(value)}'" for name, value in said.items() if value)
    connection.execute(f"LOAD '{_extension('httpfs')}'")
    connection.execute(f"CREATE OR REPLACE SECRET {NAME} (TYPE s3{listed})")


def _pause(attempt: int) -> None:
    time.sleep(random.uniform(0, min(LONGEST_PAUSE_SECONDS, 0.05 * attempt)))  # noqa: S311 - whoever waits less


def _extension(name: str) -> Path:
    """The file of an extension, which its package brings: nothing is downloaded when it is loaded."""
    found = find_spec(f"duckdb_extension_{name}")
    if found is None or not found.submodule_search_locations:
        raise DuckLakeError(
            f"the extension {name} of DuckDB is missing: install apiary-warehouse[ducklake], or unset APIARY_ENGINE"
        )
    folder = Path(found.submodule_search_locations[0]) / "extensions" / f"v{duckdb.__version__}"
    path = folder / f"{name}.duckdb_extension"
    if not path.exists():
        raise DuckLakeError(
            f"the package of the extension {name} is not of DuckDB {duckdb.__version__}: install the same version"
        )
    return path


def quoted(text: str) -> str:
    """A text within a statement that binds no values."""
    return text.replace("'", "''")


def until_committed(connection: duckdb.DuckDBPyConnection, work: Callable[[], T]) -> T:
    """What `work` returns, done in a transaction of its own: again from the start when another one committed in
    between, which only a DuckLake says. Raises duckdb.Error.
    """
    for attempt in range(1, ATTEMPTS + 1):
        connection.execute("BEGIN")
        try:
            done = work()
            connection.execute("COMMIT")
        except BaseException as error:
            # A COMMIT that failed has ended the transaction.
            with suppress(duckdb.TransactionException):
                connection.execute("ROLLBACK")
            if attempt == ATTEMPTS or not (isinstance(error, duckdb.Error) and CONFLICT.search(str(error))):
                raise
        else:
            return done
        _pause(attempt)
    raise AssertionError("unreachable")


def take_seq(connection: duckdb.DuckDBPyConnection, seq: int) -> None:
    """Let the transaction fail if another one that took a number commits before it."""
    connection.execute("UPDATE wire.load_sequence SET seq = ?", [seq])


def prepare(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the wire schema if it is absent, and as wide as the contract if it is not; several may do it at once.

    Raises duckdb.Error.
    """

    def work() -> None:
        present = set(connection.execute(PRESENT).fetchall())
        is_new = ("load_sequence", "seq") not in present
        for statement in create_wire() if is_new else ():
            connection.execute(statement.replace(" PRIMARY KEY", ""))
        for statement in widen_wire(present) if present else ():
            connection.execute(statement)
        if is_new:
            connection.execute("CREATE TABLE wire.load_sequence (seq BIGINT)")
            connection.execute("INSERT INTO wire.load_sequence VALUES (0)")

    until_committed(connection, work)
