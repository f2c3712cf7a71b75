"""Looks for strings in all that a program left behind: raw bytes, and what Parquet, DuckDB, SQLite, gzip and zip hide.

A hit in a compressed or encoded file is a leak like any other. Does not belong here: which strings are private.
"""

from __future__ import annotations

import gzip
import io
import json
import sqlite3
import stat
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

SQLITE = b"SQLite format 3\x00"
PARQUET = b"PAR1"
GZIP = b"\x1f\x8b"
ZIP = b"PK\x03\x04"
DUCKDB = b"DUCK"  # at byte 8 of the file


@dataclass(frozen=True)
class Hit:
    """A needle, and where it was found."""

    needle: str
    path: Path
    place: str


def find(root: Path, needles: Iterable[str]) -> list[Hit]:
    """Every needle in every file under `root` (or in the one file), names of files and folders included.

    Raises whatever a file that says it is Parquet, DuckDB or SQLite raises when it cannot be decoded: a file that was
    not looked into is no file without hits.
    """
    wanted = sorted(set(needles))
    if not all(wanted):
        raise ValueError("an empty needle is everywhere")
    hits: dict[Hit, None] = {}
    for path in [root] if root.is_file() else sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix() if path != root else path.name
        for needle in wanted:
            if needle in name:
                hits[Hit(needle, path, "name")] = None
        if not stat.S_ISREG(path.lstat().st_mode):
            continue
        for place, text in _texts(path):
            for needle in wanted:
                if any(form in text for form in _forms(needle)):
                    hits[Hit(needle, path, place)] = None
    return list(hits)


def _forms(needle: str) -> list[bytes]:
    """A needle as UTF-8, as UTF-16, and as JSON escapes it."""
    plain = needle.encode("utf-8", "surrogatepass")
    escaped = json.dumps(needle)[1:-1].encode()
    return [plain, escaped, needle.encode("utf-16-le", "surrogatepass")]


def _texts(path: Path) -> Iterator[tuple[str, bytes]]:
    data = path.read_bytes()
    yield "bytes", data
    yield from _decoded(data, path)


def _decoded(data: bytes, path: Path) -> Iterator[tuple[str, bytes]]:
    if data[:2] == GZIP:
        plain = _unzipped(data)
        yield "gzip", plain
        yield from _decoded(plain, path)
    elif data[:4] == ZIP:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                yield f"member {name}", archive.read(name)
    elif data[:4] == PARQUET and data[-4:] == PARQUET:
        yield from _parquet(data)
    elif data[:16] == SQLITE:
        yield from _sqlite(path)
    elif data[8:12] == DUCKDB:
        yield from _duckdb(path)


def _unzipped(data: bytes) -> bytes:
    try:
        return gzip.decompress(data)
    except (EOFError, OSError, zlib.error):
        return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(data)  # torn: what there is of it


def _parquet(data: bytes) -> Iterator[tuple[str, bytes]]:
    file = pq.ParquetFile(io.BytesIO(data))
    yield "parquet schema", f"{file.schema_arrow}{file.metadata.metadata}{file.metadata.created_by}".encode()
    for name, column in zip(file.schema_arrow.names, file.read().columns, strict=True):
        yield f"column {name}", _joined(column.to_pylist())


def _sqlite(path: Path) -> Iterator[tuple[str, bytes]]:
    """All tables, the log beside the file included: `mode=ro` reads it and changes nothing."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        connection.text_factory = lambda text: text.decode("utf-8", "surrogateescape")
        for name, sql in connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'").fetchall():
            quoted = name.replace('"', '""')
            rows = connection.execute(f'SELECT * FROM "{quoted}"').fetchall()
            yield f"table {name}", (sql or "").encode() + _joined(value for row in rows for value in row)


def _duckdb(path: Path) -> Iterator[tuple[str, bytes]]:
    import duckdb

    with closing(duckdb.connect(str(path), read_only=True)) as connection:
        tables = connection.execute(
            "SELECT schema_name, table_name, sql FROM duckdb_tables() WHERE NOT internal"
        ).fetchall()
        for schema, table, sql in tables:
            quoted = ".".join('"' + part.replace('"', '""') + '"' for part in (schema, table))
            rows = connection.execute(f"SELECT * FROM {quoted}").fetchall()
            yield f"table {schema}.{table}", (sql or "").encode() + _joined(value for row in rows for value in row)
        for (sql,) in connection.execute("SELECT sql FROM duckdb_views() WHERE NOT internal").fetchall():
            yield "view", (sql or "").encode()


def _joined(values: Iterable[Any]) -> bytes:
    return b"\x00".join(
        value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogateescape") for value in values
    )
