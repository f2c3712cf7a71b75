"""The scanner finds a string wherever a format hides it, and never takes a file it cannot read for a clean one."""

from __future__ import annotations

import gzip
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests import scanner

NEEDLE = "the pears of heron Grüße 収"


def raw(path: Path) -> None:
    path.write_bytes(b"\x00" * 99 + NEEDLE.encode() + b"\xff")


def escaped(path: Path) -> None:
    path.write_text('{"a": "the pears of heron Gr\\u00fc\\u00dfe \\u53ce"}')


def wide(path: Path) -> None:
    path.write_bytes(NEEDLE.encode("utf-16-le"))


def zipped(path: Path) -> None:
    path.write_bytes(gzip.compress(NEEDLE.encode() * 50))


def torn_zip(path: Path) -> None:
    path.write_bytes(gzip.compress(NEEDLE.encode() + bytes(range(256)) * 5000)[:-40])


def parquet(path: Path) -> None:
    pq.write_table(pa.table({"a": [{"b": [NEEDLE]}] * 1000}), path, compression="zstd")


def parquet_column(path: Path) -> None:
    pq.write_table(pa.table({NEEDLE: [1]}), path)


def parquet_footer(path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}).replace_schema_metadata({"note": NEEDLE}), path)


def sqlite_row(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE t (a)")
        database.execute("INSERT INTO t VALUES (?)", (NEEDLE,))
        database.commit()


def sqlite_wide(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA encoding = 'UTF-16be'")
        database.execute("CREATE TABLE t (a)")
        database.execute("INSERT INTO t VALUES (?)", (NEEDLE,))
        database.commit()


def duckdb_row(path: Path) -> None:
    with closing(duckdb.connect(str(path))) as database:
        database.execute("CREATE SCHEMA s")
        database.execute("CREATE TABLE s.t AS SELECT ? AS a FROM range(100000)", [NEEDLE])


def duckdb_view(path: Path) -> None:
    with closing(duckdb.connect(str(path))) as database:
        database.execute(f"CREATE VIEW v AS SELECT '{NEEDLE}' AS a")


@pytest.mark.parametrize(
    "plant",
    [raw, escaped, wide, zipped, torn_zip, parquet, parquet_column, parquet_footer, sqlite_row, sqlite_wide,
     duckdb_row, duckdb_view],
)  # fmt: skip
def test_it_is_found(tmp_path: Path, plant: Callable[[Path], None]) -> None:
    path = tmp_path / "deep" / "x.bin"
    path.parent.mkdir()
    plant(path)
    assert {(hit.needle, hit.path) for hit in scanner.find(tmp_path, [NEEDLE, "not there at all"])} == {(NEEDLE, path)}
    assert scanner.find(path, [NEEDLE]), "one file is looked at like a folder"


def test_a_row_that_only_the_log_beside_a_database_holds_is_found(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "x.db")) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE t (a)")
        database.execute("INSERT INTO t VALUES (?)", (NEEDLE,))
        database.commit()
        assert any(hit.place == "table t" for hit in scanner.find(tmp_path, [NEEDLE]))


def test_names_of_files_and_folders_are_looked_at(tmp_path: Path) -> None:
    (tmp_path / f"x{NEEDLE}y").mkdir()
    assert scanner.find(tmp_path, [NEEDLE])[0].place == "name"


def test_a_broken_file_of_a_known_kind_is_no_clean_one(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"PAR1 broken PAR1")
    with pytest.raises(pa.ArrowException):
        scanner.find(tmp_path, [NEEDLE])


def test_an_empty_needle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="empty"):
        scanner.find(tmp_path, [""])
