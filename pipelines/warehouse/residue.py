"""Whether anything is left: searches the bytes of files and objects for identifiers, also inside what is compressed.

Does not belong here: which identifiers should be gone (erase.py).
"""

import gzip
import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.store import Store

WORD = 8
SHORTEST = 12  # of a shorter identifier a match may be chance
CHUNK = 32 << 20


class Needles:
    """Identifiers to look for, all at once: their last eight bytes are compared as one number.

    `names` are short words such as a user's; they count where they stand alone, as a value or a part of a key.
    """

    def __init__(self, identifiers: Iterable[str], names: Iterable[str] = ()) -> None:
        self._by_end: dict[int, list[bytes]] = {}
        for text in identifiers:
            needle = text.encode()
            if len(needle) < SHORTEST:
                raise ValueError("an identifier is too short to be searched for")
            self._by_end.setdefault(int.from_bytes(needle[-WORD:], "little"), []).append(needle)
        self._longest = max((len(needle) for found in self._by_end.values() for needle in found), default=0)
        self._ends = np.array(sorted(self._by_end), dtype=np.uint64)
        words = "|".join(re.escape(name) for name in names)
        self._names = re.compile(rf"(?<![a-z0-9_-])(?:{words})(?![a-z0-9_-])".encode()) if words else None

    def are_in(self, data: bytes) -> bool:
        """Whether one of the identifiers, or a name that stands alone, is in the bytes."""
        return self._has_identifier(data) or (self._names is not None and self._names.search(data) is not None)

    def _has_identifier(self, data: bytes) -> bool:
        if not len(self._ends):
            return False
        for offset in range(min(WORD, len(data) - WORD + 1)):
            words = np.frombuffer(data, dtype="<u8", count=(len(data) - offset) // WORD, offset=offset)
            places = np.searchsorted(self._ends, words)
            places[places == len(self._ends)] = 0
            for index in np.flatnonzero(self._ends[places] == words):
                end = offset + int(index) * WORD + WORD
                for needle in self._by_end[int(words[index])]:
                    if data[max(0, end - len(needle)) : end] == needle:
                        return True
        return False

    def are_in_file(self, path: Path) -> bool:
        """Whether they are in a file: in its bytes, and in what its format hides from a search of bytes."""
        before = b""
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                if self._has_identifier(before + chunk):
                    return True
                before = chunk[-self._longest :] if self._longest else b""
        if path.suffix == ".duckdb":
            return any(self.are_in(text) for text in _texts_of_database(path))
        if path.suffix in (".parquet", ".gz", ".json", ".csv", ".ids"):
            return self.are_in_object(path.name, path.read_bytes())
        return False

    def are_in_object(self, key: str, data: bytes) -> bool:
        """Whether they are in an object, or in its key."""
        if self.are_in(key.encode()):
            return True
        if key.endswith(".parquet"):
            return self._has_identifier(data) or any(self.are_in(text) for text in _texts_of_parquet(data))
        return self.are_in(gzip.decompress(data) if key.endswith(".gz") else data)


def _texts_of_parquet(data: bytes) -> Iterator[bytes]:
    try:
        file = pq.ParquetFile(io.BytesIO(data))
        names = [field.name for field in file.schema_arrow if pa.types.is_string(field.type)]
        for number in range(file.num_row_groups):
            for column in file.read_row_group(number, columns=names).columns:
                yield "\n".join(text for text in column.unique().to_pylist() if text is not None).encode()
    except (pa.ArrowException, OSError):
        return  # no Parquet file, whatever its name says: its bytes were searched


def _texts_of_database(path: Path) -> Iterator[bytes]:
    with duckdb.connect(str(path), read_only=True) as connection:
        columns = connection.execute(
            "SELECT schema_name, table_name, column_name FROM duckdb_columns() SEMI JOIN duckdb_tables()"
            " USING (database_name, schema_name, table_name) WHERE data_type = 'VARCHAR'"
        ).fetchall()
        for schema, table, column in columns:
            found = connection.table(f'"{schema}"."{table}"').select(duckdb.ColumnExpression(column)).distinct()
            for batch in found.to_arrow_reader():
                yield "\n".join(text for text in batch.column(0).to_pylist() if text is not None).encode()


def search(
    needles: Needles, folders: Iterable[Path], *, passing_over: Iterable[Path], store: Store | None = None,
    passing_over_keys: tuple[str, ...] = (),
) -> tuple[int, list[str]]:  # fmt: skip
    """Search every file and object; how many were searched, and those that hold an identifier.

    Raises StoreUnavailableError, OSError.
    """
    spared = [path.resolve() for path in passing_over]
    searched, found = 0, []
    for path in sorted(path for folder in folders for path in folder.rglob("*")):
        if path.is_symlink() or not path.is_file() or any(path.is_relative_to(other) for other in spared):
            continue
        searched += 1
        if needles.are_in_file(path):
            found.append(str(path))
    for entry in store.list("") if store else ():
        if not entry.key.startswith(passing_over_keys or ("\0",)):
            searched += 1
            if needles.are_in_object(entry.key, store.get(entry.key)):  # type: ignore[union-attr]
                found.append(entry.key)
    return searched, found
