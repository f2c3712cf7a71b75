"""Where what was erased may be left: every file and every object is searched, or it is said why it was not.

Objects that devices wrote are opened by a sandboxed child with the gate's limits (gate_child.py), one by one.
Does not belong here: what to look for (needles.py), which findings stop an erasure (erase.py).
"""

import atexit
import csv
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Collection, Iterable, Iterator
from functools import cache
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from pipelines.home import CODE
from pipelines.store import Store, TooLargeError
from pipelines.warehouse.gate import PREFIX, Child, DiedError, read
from pipelines.warehouse.gate_child import LENGTH
from pipelines.warehouse.landing import MAX_OBJECT_BYTES
from pipelines.warehouse.needles import (
    CHUNK,
    GZIP,
    MAX_UNPACKED_BYTES,
    PARQUET,
    ZIP,
    Needles,
    UnsearchableError,
    members_of_zip,
    texts_of_parquet,
    unpacked,
)

DATABASE = b"DUCK"  # at the ninth byte of a DuckDB file
EVERY, USERS = re.compile(""), re.compile("user(s|_?(ids?|names?))?$|^SubAccount(Id|Name)$", re.IGNORECASE)
"""Names of columns: all, and those whose values are users."""


@cache
def own_words() -> frozenset[str]:
    """Words of the program itself: a user who is called like one can be told from it where a table names users only."""
    texts = [
        path.read_text("utf-8")
        for folder in CODE
        for path in folder.rglob("*")
        if path.suffix in (".py", ".sql", ".yml") and "target" not in path.parts
    ]
    return frozenset(word for text in texts for word in re.findall(r"[a-z0-9_-]+", text))


def found_in_file(needles: Needles, path: Path) -> set[str]:
    """The words that are in a file: in its bytes, and in what its format hides from a search of bytes.

    Raises UnsearchableError, OSError.
    """
    with path.open("rb") as file:
        head = file.read(12)
        file.seek(0)
        found = needles.found_in_parts(iter(lambda: file.read(CHUNK), b""))
        file.seek(0)
        if head.startswith(GZIP):
            found |= needles.found_in_parts(unpacked(file))
        if head.startswith(ZIP):
            found |= needles.found_in_parts(members_of_zip(file))
    if head.startswith(PARQUET):
        if path.stat().st_size > MAX_UNPACKED_BYTES:
            raise UnsearchableError("object_too_large")
        for text in texts_of_parquet(path.read_bytes()):
            found |= needles.found_in(text)
    if head[8:12] == DATABASE:
        for text in _texts_of_database(path):
            found |= needles.found_in(text)
    return found


def users_in_file(names: Collection[str], path: Path) -> set[str]:
    """Which names are values of a column for users, in Parquet, DuckDB or CSV. Raises UnsearchableError, OSError."""
    texts: Iterable[bytes] = ()
    with path.open("rb") as file:
        head = file.read(12)
    if head.startswith(PARQUET):
        columns = [name for name in pq.read_schema(path).names if USERS.search(name)]
        table = pq.read_table(path, columns=columns, partitioning=None)
        texts = (str(column.to_pylist()).encode() for column in table.columns)
    elif head[8:12] == DATABASE:
        texts = _texts_of_database(path, only=USERS)
    elif path.suffix == ".csv":
        try:
            with path.open(newline="", encoding="utf-8", errors="replace") as lines:
                rows = list(csv.DictReader(lines))
        except csv.Error:  # such as a cell of a megabyte
            raise UnsearchableError("no_csv") from None
        texts = (str(value).encode() for row in rows for name, value in row.items() if name and USERS.search(name))
    return Needles((), names).found_in_parts(b"\n" + text for text in texts)


def _texts_of_database(path: Path, *, only: re.Pattern[str] = EVERY) -> Iterator[bytes]:
    try:
        with duckdb.connect(str(path), read_only=True) as connection:
            tables = connection.execute(
                "SELECT schema_name, table_name, list(column_name) FROM duckdb_columns() SEMI JOIN duckdb_tables()"
                " USING (database_name, schema_name, table_name) WHERE data_type IN ('VARCHAR', 'VARCHAR[]', 'JSON')"
                " AND regexp_matches(column_name, ?, 'i') GROUP BY ALL",
                [only.pattern],
            ).fetchall()
            for schema, name, columns in tables:
                table = connection.table(f'"{schema}"."{name}"')
                for column in columns if table.limit(1).fetchone() else ():
                    found = table.select(duckdb.ColumnExpression(column)).distinct()
                    for batch in found.to_arrow_reader():
                        yield "\n".join(str(text) for text in batch.column(0).to_pylist() if text is not None).encode()
    except duckdb.Error:
        raise UnsearchableError("no_database") from None


def files(folders: Iterable[Path], *, passing_over: Iterable[Path]) -> Iterator[Path]:
    """Every regular file of some folders. Nothing else is opened: a FIFO would make the search wait for ever."""
    spared = [path.resolve() for path in passing_over]
    for path in sorted(path for folder in folders for path in folder.rglob("*")):
        if not path.is_symlink() and path.is_file() and not any(path.is_relative_to(other) for other in spared):
            yield path


@cache
def _child_of(_process: int) -> Child:
    """The child of this process that searches: it takes a moment to start, so it serves every search."""
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    child = Child(folder / "progress", "search")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(child.end)
    return child


class ObjectSearch:
    """Searches objects of a store in a child process."""

    def __init__(self, needles: Needles, store: Store) -> None:
        self._needles = needles
        self._store = store
        self._child = _child_of(os.getpid())
        self._told: subprocess.Popen[bytes] | None = None
        """The process that knows the words."""

    def found_in(self, key: str) -> set[str]:
        """The words in an object, none if it is gone. Raises UnsearchableError, StoreUnavailableError."""
        try:
            data = self._store.get(key, limit=MAX_OBJECT_BYTES)
        except KeyError:
            return set()
        except TooLargeError:
            raise UnsearchableError("object_too_large") from None

        def talk(process: subprocess.Popen[bytes]) -> tuple[set[str], str | None]:
            assert process.stdin is not None  # noqa: S101 - a pipe was asked for
            name = json.dumps(key).encode()
            parts = [name, data] if process is self._told else [self._needles.to_json(), name, data]
            for part in parts:
                process.stdin.write(LENGTH.pack(len(part)) + part)
            process.stdin.flush()
            self._told = process
            said = json.loads(read(process))
            return {str(word) for word in said["found"]}, said["reason"]

        try:
            found, reason = self._child.ask(talk, 1)
        except DiedError as error:
            found, reason = self._needles.found_in(data) | self._needles.found_in(key.encode()), str(error)
        if reason is not None and not found:
            raise UnsearchableError(reason)
        return found
