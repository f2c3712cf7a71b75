"""Identifiers and names that should be gone, and whether bytes hold one of them, also inside gzip, zip and Parquet.

`answer` is what the sandboxed child does with objects that devices wrote: a file may be made to break whoever opens it.
Does not belong here: which identifiers should be gone (erase.py), where to look (residue.py).
"""

import io
import json
import lzma
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.warehouse.gate_child import LENGTH

WORD = 8
SHORTEST = 12  # of a shorter identifier a match may be chance
FEWEST_BITS, MOST_BITS = 16, 26  # of the number of a place in the table of ends: it has 64 KiB to 64 MiB
PLACES_PER_END = 32
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio: Fibonacci hashing (Knuth, TAOCP 6.4)
CHUNK = 8 << 20
MAX_UNPACKED_BYTES = 256 << 20  # as much as an object of a batch may unpack to (decode.py)
MAX_FOOTER_BYTES = 1 << 20
BATCH_ROWS = 65_536
GZIP, PARQUET, ZIP = b"\x1f\x8b", b"PAR1", b"PK\x03\x04"


class UnsearchableError(Exception):
    """What is inside cannot be read within the limits; the text is a reason of one word."""


class Needles:
    """Words to look for, all at once: the last eight bytes of each identifier are compared as one number.

    `names` are short words such as a user's; they count where they stand alone, as a value or a part of a key.
    """

    def __init__(self, identifiers: Iterable[str], names: Iterable[str] = ()) -> None:
        self.identifiers, self.names = sorted(set(identifiers)), sorted(set(names))
        self._by_end: dict[int, list[bytes]] = {}
        for text in self.identifiers:
            needle = text.encode()
            if len(needle) < SHORTEST:
                raise ValueError("an identifier is too short to be searched for")
            self._by_end.setdefault(int.from_bytes(needle[-WORD:], "little"), []).append(needle)
        self.longest = max((len(needle) for needle in (*self.identifiers, *self.names)), default=0) + 1
        self._ends = np.array(sorted(self._by_end), dtype=np.uint64)
        # A table with room for many more ends than there are: where it says no, which is nearly everywhere, nothing is
        # looked for among the ends. With few places for a million ends, each object of the store would cost seconds.
        bits = min(MOST_BITS, max(FEWEST_BITS, (len(self._ends) * PLACES_PER_END).bit_length()))
        self._shift = np.uint64(64 - bits)
        self._has_end = np.zeros(1 << bits, dtype=bool)
        self._has_end[self._numbers(self._ends)] = True
        words = "|".join(re.escape(name) for name in self.names)
        self._names = re.compile(rf"(?<![a-z0-9_-])(?:{words})(?![a-z0-9_-])".encode()) if words else None

    def found_in(self, data: bytes) -> set[str]:
        """The words that are in the bytes."""
        return {word for word, _ in self._places_in(data)}

    def texts_holding(self, texts: Sequence[str]) -> list[str]:
        """Those of many texts that hold one of the words: in one search, since each one has its cost."""
        parts = [text.encode() for text in texts]
        ends = np.cumsum([len(part) + 1 for part in parts])  # no word holds what is put between two of them
        at = {int(np.searchsorted(ends, end)) for _, end in self._places_in(b"\n".join(parts))}
        return [texts[index] for index in sorted(at)]

    def _places_in(self, data: bytes) -> Iterator[tuple[str, int]]:
        """The words, each with the place behind it."""
        yield from self._identifiers_in(data)
        for match in self._names.finditer(data) if self._names is not None else ():
            yield match[0].decode(), match.end()

    def _identifiers_in(self, data: bytes) -> Iterator[tuple[str, int]]:
        if not len(self._ends):
            return
        for offset in range(min(WORD, len(data) - WORD + 1)):
            words = np.frombuffer(data, dtype="<u8", count=(len(data) - offset) // WORD, offset=offset)
            likely = np.flatnonzero(self._has_end[self._numbers(words)])
            nearest = np.minimum(np.searchsorted(self._ends, words[likely]), len(self._ends) - 1)
            for index in likely[self._ends[nearest] == words[likely]]:
                end = offset + int(index) * WORD + WORD
                for needle in self._by_end[int(words[index])]:
                    if data[max(0, end - len(needle)) : end] == needle:
                        yield needle.decode(), end

    def _numbers(self, words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        """The place of each in the table: multiplied, because the bytes of hexadecimal text have few values."""
        return (words * MULTIPLIER) >> self._shift

    def found_in_parts(self, parts: Iterable[bytes]) -> set[str]:
        """The words that are in a text which comes in parts, also across their borders."""
        found: set[str] = set()
        before = b""
        for part in parts:
            found |= self.found_in(before + part)
            before = part[-self.longest :]
        return found

    def found_in_object(self, key: str, data: bytes) -> set[str]:
        """The words that are in an object or in its key. Raises UnsearchableError if something in it stays hidden."""
        found = self.found_in(key.encode()) | self.found_in(data)
        if data.startswith(GZIP):
            return found | self.found_in_parts(unpacked(io.BytesIO(data)))
        if data.startswith(PARQUET) or key.endswith(".parquet"):
            for text in texts_of_parquet(data):
                found |= self.found_in(text)
        elif key.endswith(".gz"):
            raise UnsearchableError("no_gzip")
        return found

    def to_json(self) -> bytes:
        """For another process."""
        return json.dumps([self.identifiers, self.names]).encode()


def unpacked(file: BinaryIO) -> Iterator[bytes]:
    """What gzip hides, a part at a time. Raises UnsearchableError if it is torn or unpacks to too much."""
    total = 0
    unpacker = zlib.decompressobj(wbits=31)
    data = file.read(CHUNK)
    while data:
        try:
            part = unpacker.decompress(data, CHUNK)
        except zlib.error:
            raise UnsearchableError("no_gzip") from None
        total += len(part)
        if total > MAX_UNPACKED_BYTES:
            raise UnsearchableError("unpacks_to_too_much")
        yield part
        data = unpacker.unconsumed_tail
        if unpacker.eof:
            data = unpacker.unused_data or file.read(CHUNK)  # gzip files may stand one behind the other
            unpacker = zlib.decompressobj(wbits=31)
        elif not data:
            data = file.read(CHUNK)
            if not data:
                raise UnsearchableError("no_gzip")


def members_of_zip(file: BinaryIO) -> Iterator[bytes]:
    """What zip hides, such as the sheets of a workbook, a part at a time. Raises UnsearchableError."""
    total = 0
    try:
        with zipfile.ZipFile(file) as archive:
            for name in archive.namelist():
                with archive.open(name) as member:
                    while part := member.read(CHUNK):
                        total += len(part)
                        if total > MAX_UNPACKED_BYTES:
                            raise UnsearchableError("unpacks_to_too_much")
                        yield part
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError, ValueError, RuntimeError):
        # Damaged, encrypted, or packed in a way that is not known here: what else escaped would end every erasure.
        raise UnsearchableError("no_zip") from None


def texts_of_parquet(data: bytes) -> Iterator[bytes]:
    """Every text of a Parquet file, also nested and binary. Raises UnsearchableError."""
    if len(data) < WORD or struct.unpack("<I", data[-8:-4])[0] > MAX_FOOTER_BYTES:
        raise UnsearchableError("no_parquet")
    total = 0
    try:
        file = pq.ParquetFile(io.BytesIO(data))
        for batch in file.iter_batches(batch_size=BATCH_ROWS):
            for column in batch.columns:
                for text in _texts(column):
                    total += len(text)
                    if total > MAX_UNPACKED_BYTES:
                        raise UnsearchableError("unpacks_to_too_much")
                    yield text
    except (pa.ArrowException, OSError, MemoryError):
        raise UnsearchableError("no_parquet") from None


def _texts(column: pa.Array) -> Iterator[bytes]:
    kind = column.type
    if pa.types.is_dictionary(kind):
        yield from _texts(column.dictionary)
    elif pa.types.is_struct(kind):
        for number in range(kind.num_fields):
            yield from _texts(column.field(number))
    elif pa.types.is_map(kind):
        yield from _texts(column.keys)
        yield from _texts(column.items)
    elif pa.types.is_nested(kind) and hasattr(column, "flatten"):
        yield from _texts(column.flatten())
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        yield "\n".join(text for text in column.unique().to_pylist() if text is not None).encode()
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        yield b"\n".join(text for text in column.unique().to_pylist() if text is not None)


def answer(jobs: BinaryIO, answers: BinaryIO, announce: Callable[[int], None]) -> None:
    """Search objects one by one: a list is the words from now on, a text the key of an object whose bytes follow."""
    words = Needles(())
    while header := jobs.read(LENGTH.size):
        key = json.loads(jobs.read(*LENGTH.unpack(header)))
        if isinstance(key, list):
            words = Needles(*key)
            continue
        data = jobs.read(*LENGTH.unpack(jobs.read(LENGTH.size)))
        announce(0)
        try:
            found, reason = words.found_in_object(key, data), None
        except UnsearchableError as error:
            found, reason = words.found_in(key.encode()) | words.found_in(data), str(error)
        part = json.dumps({"found": sorted(found), "reason": reason}).encode()
        answers.write(LENGTH.pack(len(part)) + part)
        answers.flush()
        announce(-1)
