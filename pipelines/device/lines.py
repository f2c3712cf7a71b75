"""Lines of files that a running program appends to: torn, glued, rewritten, replaced.

Does not belong here: what a line means (readers), what has been read (state.py).
"""

import hashlib
import json
import os
import re
import stat
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

from pipelines.failpoints import fp

CHUNK = 1 << 20  # one transaction's worth of reading
LOOK_BACK = 1 << 20  # a tool call that began further back has no duration
TAIL = 1 << 18  # what tells a file's newest lines
MAX_LINE = 32 << 20  # far above any record that counts; a longer line is passed over in constant memory
TAIL_PATIENCE_SECONDS = 86_400  # no write takes a day
FINGERPRINT = 1024
MAX_SALVAGE_TRIES = 64
MAX_SWALLOWED_TRIES = 4096
MAX_DIGITS = (
    40  # no count has more; Python refuses to read an integer of thousands of digits, which would cost the line
)

_OPENER = re.compile(r'\{\s*"')


class UnreadableError(Exception):
    """The file is there and cannot be read, or is not a plain file of ours."""


@dataclass(frozen=True)
class Checkpoint:
    """How far a file has been read. `offset` stands just after a record; the hashes bind it to what was before it.

    `line` counts the line ends before the offset, so that a record has the same line number in however many passes
    its file is read. `tail_hash` covers the bytes just before the offset: a rewrite that keeps the head but shifts the
    rest is seen.
    """

    device: int = 0
    inode: int = 0
    generation: int = 0
    size: int = 0
    modified_ns: int = 0
    offset: int = 0
    line: int = 0
    head_length: int = 0
    head_hash: str = ""
    tail_length: int = 0
    tail_hash: str = ""
    given_up: int = 0
    """The file's size when its torn last line was counted. The offset stays before that line: should the file grow
    after all, as a copy does that was cut off, the line is read whole."""


class Line(NamedTuple):
    """One physical line: its bytes without the line end (None if too long), where it began, its number from 1."""

    data: bytes | None
    offset: int
    number: int
    is_abandoned: bool = False
    """The file's torn end, which nobody finished."""


@dataclass
class Chunk:
    """Lines of one transaction and the checkpoint to store with what they become."""

    lines: list[Line]
    checkpoint: Checkpoint


def open_plain(path: Path) -> BinaryIO:
    """Open a file for reading if it is a plain file and no link. Raises FileNotFoundError, UnreadableError.

    A second hard link may be a file that no pattern names, under a name that one does.
    """
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        handle = os.open(path, flags)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UnreadableError(error.strerror) from None
    if not is_plain(os.fstat(handle)):
        os.close(handle)
        raise UnreadableError("not a plain file")
    return os.fdopen(handle, "rb")


def is_plain(status: os.stat_result) -> bool:
    """Whether a status is that of a plain file. One with other names counts if it is ours: a home may be a backup of
    hard links, but a link to somebody else's file is a way into it."""
    is_ours = status.st_nlink <= 1 or not hasattr(os, "getuid") or status.st_uid == os.getuid()
    return stat.S_ISREG(status.st_mode) and is_ours


def read_new(path: Path, checkpoint: Checkpoint, *, now: float = 0.0) -> Iterator[Chunk]:
    """What a file holds beyond a checkpoint, in chunks. A file that was replaced or rewritten is read from its start.

    A reset is yielded as a chunk without lines, so that it is stored before anything is read: a crash in between must
    not seek to an old offset. A last line without an end is given if it is a whole record; if it is torn and the file
    has not changed for a day before `now` (seconds since 1970), it is given once, for what it may hold and to be
    counted, and the checkpoint stays before it.
    Raises FileNotFoundError, UnreadableError.
    """
    with open_plain(path) as file:
        try:
            yield from _chunks(file, checkpoint, now)
        except OSError as error:  # a bad sector costs this file, not the shipping
            raise UnreadableError(error.strerror) from None


def before(path: Path, checkpoint: Checkpoint) -> list[bytes]:
    """The whole lines of the last megabyte before a checkpoint: what was under way when the last pass ended.

    Raises FileNotFoundError, UnreadableError.
    """
    if not checkpoint.offset:
        return []
    with open_plain(path) as file:
        try:
            start = max(0, checkpoint.offset - LOOK_BACK)
            file.seek(start)
            found = file.read(checkpoint.offset - start).splitlines()
        except OSError as error:
            raise UnreadableError(error.strerror) from None
    return found[1:] if start else found


def tail(path: Path) -> tuple[bytes, int]:
    """The last quarter of a megabyte of a file, and where it begins. Raises FileNotFoundError, UnreadableError."""
    with open_plain(path) as file:
        try:
            start = max(0, file.seek(0, os.SEEK_END) - TAIL)
            file.seek(start)
            return file.read(TAIL), start
        except OSError as error:
            raise UnreadableError(error.strerror) from None


def _chunks(file: BinaryIO, checkpoint: Checkpoint, now: float) -> Iterator[Chunk]:
    status = os.fstat(file.fileno())
    if not _continues(file, status, checkpoint):
        checkpoint = Checkpoint(generation=checkpoint.generation + 1 if checkpoint.inode else 0)
        checkpoint = replace(checkpoint, device=status.st_dev, inode=status.st_ino)
        fp("read.reset")
        yield Chunk([], checkpoint)
    checkpoint = replace(checkpoint, device=status.st_dev, inode=status.st_ino)
    size = status.st_size  # what is appended meanwhile is the next pass's
    while checkpoint.offset < size:
        chunk = _read_chunk(file, checkpoint, size)
        if not chunk.lines:
            break
        checkpoint = chunk.checkpoint
        yield chunk
    checkpoint = replace(checkpoint, size=size, modified_ns=status.st_mtime_ns)
    if _is_torn_for_good(checkpoint, status, now):
        file.seek(checkpoint.offset)
        data = file.read(size - checkpoint.offset) if size - checkpoint.offset <= MAX_LINE else None
        abandoned = Line(data, checkpoint.offset, checkpoint.line + 1, is_abandoned=True)
        yield Chunk([abandoned], replace(checkpoint, given_up=size))
    else:
        yield Chunk([], checkpoint)


def _is_torn_for_good(checkpoint: Checkpoint, status: os.stat_result, now: float) -> bool:
    """Whether the file ends in a torn line that its writer will not finish and that was not counted yet."""
    is_old = status.st_mtime < now - TAIL_PATIENCE_SECONDS
    return checkpoint.offset < checkpoint.size and checkpoint.given_up != checkpoint.size and is_old


def is_unchanged(status: os.stat_result, checkpoint: Checkpoint, *, now: float = 0.0) -> bool:
    """Whether there is nothing to do for a file: unchanged since its last reading, and no torn line to give up on."""
    seen = (checkpoint.device, checkpoint.inode, checkpoint.size, checkpoint.modified_ns)
    if seen != (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns):
        return False
    return not _is_torn_for_good(checkpoint, status, now)


def is_finished(checkpoint: Checkpoint) -> bool:
    """Whether nothing of a file waits to be read or given up on."""
    return checkpoint.size in (checkpoint.offset, checkpoint.given_up)


def _continues(file: BinaryIO, status: os.stat_result, checkpoint: Checkpoint) -> bool:
    if status.st_size < checkpoint.offset or not checkpoint.inode:
        return False
    return _hash(file, 0, checkpoint.head_length) == checkpoint.head_hash and (
        _hash(file, checkpoint.offset - checkpoint.tail_length, checkpoint.tail_length) == checkpoint.tail_hash
    )


def _hash(file: BinaryIO, start: int, length: int) -> str:
    if not length:
        return ""
    file.seek(start)
    return hashlib.sha256(file.read(length)).hexdigest()


def _read_chunk(file: BinaryIO, checkpoint: Checkpoint, size: int) -> Chunk:
    start = checkpoint.offset
    file.seek(start)
    data = file.read(min(CHUNK, size - start))
    end = data.rfind(b"\n") + 1
    if not end:
        return _long_or_last_line(file, checkpoint, size)
    lines, offset, number = [], start, checkpoint.line
    texts = data.split(b"\n")
    texts.pop()  # torn, or empty behind the last line's end
    del data  # two copies of a chunk would be held while its lines are read
    for text in texts:
        number += 1
        lines.append(Line(text.removesuffix(b"\r"), offset, number))
        offset += len(text) + 1
    return Chunk(lines, _moved(file, checkpoint, start + end, number))


def _long_or_last_line(file: BinaryIO, checkpoint: Checkpoint, size: int) -> Chunk:
    """The line at the checkpoint, which is longer than a chunk or has no end yet."""
    start, position = checkpoint.offset, checkpoint.offset
    kept: list[bytes] | None = []
    file.seek(start)
    while position < size:
        part = file.read(min(CHUNK, size - position))
        if not part:
            break
        end = part.find(b"\n")
        position += len(part) if end < 0 else end
        if kept is not None:
            kept.append(part if end < 0 else part[:end])
            if position - start > MAX_LINE:
                kept = None
        if end >= 0:
            line = Line(b"".join(kept) if kept is not None else None, start, checkpoint.line + 1)
            return Chunk([line], _moved(file, checkpoint, position + 1, line.number))
    text = b"".join(kept) if kept is not None else None
    if text and _is_whole(text):
        return Chunk([Line(text, start, checkpoint.line + 1)], _moved(file, checkpoint, position, checkpoint.line))
    return Chunk([], checkpoint)


def _is_whole(text: bytes) -> bool:
    try:
        return isinstance(loads(text), dict)
    except ValueError:
        return False


def _moved(file: BinaryIO, checkpoint: Checkpoint, offset: int, line: int) -> Checkpoint:
    head = min(offset, FINGERPRINT)
    if checkpoint.head_length < FINGERPRINT:
        checkpoint = replace(checkpoint, head_length=head, head_hash=_hash(file, 0, head))
    tail = min(offset, FINGERPRINT)
    return replace(checkpoint, offset=offset, line=line, tail_length=tail, tail_hash=_hash(file, offset - tail, tail))


def loads(text: bytes, *, errors: Literal["strict", "replace"] = "strict") -> Any:
    """JSON as Python programs write it: bare NaN becomes None, lone surrogates stay, numbers keep their digits.

    Raises ValueError.
    """
    return _DECODER.decode(text.decode("utf-8", errors))


def _no_number(_: str) -> None:
    return None


def _integer(text: str) -> int | None:
    return int(text) if len(text) <= MAX_DIGITS else None


def _decimal(text: str) -> Decimal | None:
    try:
        return Decimal(text)
    except ArithmeticError:  # an exponent beyond all bounds
        return None


_DECODER = json.JSONDecoder(parse_float=_decimal, parse_int=_integer, parse_constant=_no_number, strict=False)


@dataclass(frozen=True)
class Parsed:
    """The records of one line, each with the byte of the line it begins at: usually one; none if the line is torn.

    `is_salvaged`: a torn one stood beside them.
    """

    records: list[tuple[int, dict[str, Any]]]
    is_salvaged: bool = False


def parse(
    data: bytes, is_record: Callable[[dict[str, Any]], bool], *, errors: Literal["strict", "replace"] = "strict"
) -> Parsed:
    """The records of a line. A program killed in mid-write leaves a torn record to which the next one is glued.

    `is_record` tells a record from an object inside a torn one. `errors`: whether a whole line with bytes that are no
    text is none, or has them replaced, where nothing but numbers and generated ids is read of it.
    """
    try:
        found = loads(data, errors=errors)
        return Parsed([(0, found)] if isinstance(found, dict) and is_record(found) else [])
    except (ValueError, RecursionError):
        return _salvage(data, is_record)


def fault(data: bytes) -> Literal["torn", "nul_fill", "bad_utf8", "bad_type"]:
    """Why a line holds no record: what is counted in its place, never its text."""
    if b"\0" in data:
        return "nul_fill"
    try:
        loads(data)
    except UnicodeDecodeError:
        return "bad_utf8"
    except RecursionError:
        return "bad_type"
    except ValueError:
        return "torn"
    return "bad_type"


def _salvage(data: bytes, is_record: Callable[[dict[str, Any]], bool]) -> Parsed:
    """Whole records behind torn ones or behind each other.

    Where a torn record stops being JSON, the next one begins: just before that point, or at the first opener after it.
    So a torn record costs one or two tries, however many objects it holds. Torn where a value was due, it takes the
    next one for that value and stops being JSON behind it. An object inside a torn record is followed by more of that
    record, so only an object that the line's end or another one follows is trusted.
    """
    text = data.decode("utf-8", "surrogateescape")
    openers = [match.start() for match in _OPENER.finditer(text)]
    records: list[tuple[int, dict[str, Any]]] = []
    position, tries, is_torn = 0, 0, False
    while position < len(text) and tries < MAX_SALVAGE_TRIES:
        try:
            start, (found, end) = position, _object(text, position)
        except (json.JSONDecodeError, RecursionError) as error:
            is_torn, tries = True, tries + 1
            broken = getattr(error, "pos", position)
            swallowed = _ending_at(text, openers, position, broken)
            if swallowed is None:
                position = _next_opener(openers, position, broken, len(text))
                continue
            start, found, end = *swallowed, broken
        if _is_apart(text, end) and isinstance(found, dict) and is_record(found) and _is_clean(text[start:end]):
            records.append((len(text[:start].encode("utf-8", "surrogateescape")), found))
            position = end
        else:
            is_torn, tries = True, tries + 1
            position = _next_opener(openers, end - 1, end - 1, len(text))
    return Parsed(records, is_salvaged=is_torn and bool(records))


def _object(text: str, start: int) -> tuple[Any, int]:
    """The value at `start` and where the next thing begins. Raises JSONDecodeError, RecursionError."""
    found, end = _DECODER.raw_decode(text, start)
    while end < len(text) and text[end].isspace():
        end += 1
    return found, end


def _is_apart(text: str, end: int) -> bool:
    return end == len(text) or text[end] == "{"


def _ending_at(text: str, openers: list[int], start: int, broken: int) -> tuple[int, dict[str, Any]] | None:
    """The object within a broken one that ends where that one breaks: there is at most one."""
    if not _is_apart(text, broken) or not text[start:broken].rstrip().endswith("}"):
        return None
    last = bisect_right(openers, broken - 1)
    for opener in reversed(openers[max(bisect_right(openers, start), last - MAX_SWALLOWED_TRIES) : last]):
        try:
            found, end = _object(text, opener)
        except (json.JSONDecodeError, RecursionError):
            continue
        if end == broken:
            return opener, found
    return None


def _next_opener(openers: list[int], start: int, broken: int, length: int) -> int:
    """Where the next record may begin when the one at `start` is broken at `broken`."""
    place = bisect_right(openers, broken)
    if place and openers[place - 1] > start:
        return openers[place - 1]
    place = bisect_right(openers, max(start, broken))
    return openers[place] if place < len(openers) else length


def _is_clean(text: str) -> bool:
    """Whether every byte was UTF-8: a record whose letters were torn is not whole."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
