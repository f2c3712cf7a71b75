"""What an agent runtime is to the device: where its homes lie, which of their files may be opened, and how these become
records with the source's values. docs/adding-a-runtime.md leads through it; readers/registry.py lists the runtimes.

Does not belong here: anything that only one runtime has; redaction, identity hashes, consent, state: a reader only says
what it found.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from pipelines.contract.table import Table
from pipelines.device.clock import Clock

Json = dict[str, Any]
Rank = tuple[int | str, ...]


class UnknownLayoutError(Exception):
    """The database is not one that the runtime's reader knows."""


class CorruptError(Exception):
    """The file is no database, or a broken one."""


@dataclass(frozen=True)
class Part:
    """Some of the columns of a record that stands on several lines. Of the parts of one name the least rank speaks.

    A rank is kept as it is: numbers and generated ids only, nothing that a person wrote.
    """

    rank: Rank
    values: Mapping[str, object]


Parts = Mapping[str, Part]


def count(value: object) -> int | None:
    """A JSON number as a count; None if it is none: a fraction, negative, a truth value, another type."""
    if isinstance(value, Decimal) and value.is_finite() and value == value.to_integral_value():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def joined(parts: Parts) -> dict[str, object]:
    """The columns of all parts."""
    return {name: value for part in parts.values() for name, value in part.values.items()}


@dataclass(frozen=True)
class Record:
    """One thing found: its table, its natural key as the source wrote it, and the source's values by column.

    Words of ours in a key are `Constant`s: any other text that has no generated form is taken for a name, and the
    identity is keyed. A table that counts tokens is never keyed: there names are left out of the key, `fallback_key`
    (numbers, times, generated ids) stands in for them, and `told_apart_by` are further names and numbers that tell two
    records of one key apart.

    `at` is the record's own time, if it has one: consent without history goes by it. `totals`: columns that sum up what
    was since `totals_since` (None: unknown); without history they do not leave if that was before the consent.
    `is_turn`: a naive sum would count it. `belongs_to_folder`: the session is known from the folder only, so a fork's
    copy names the wrong one and the earliest session that holds the record owns it.

    `parts`: what this line knows of a record that stands on several lines or in several copies, instead of `values`.
    The device keeps the best part of each name, in whatever order they are read; once it has all that are `needed`,
    `finish` makes the columns of them, and again whenever a better part is found.
    """

    table: Table
    key: tuple[object, ...]
    values: Mapping[str, object] = field(default_factory=dict)
    at: datetime | None = None
    is_turn: bool = False
    belongs_to_folder: bool = False
    fallback_key: tuple[object, ...] = ()
    told_apart_by: tuple[object, ...] = ()
    fields_dropped: int = 0
    fields_unknown: int = 0
    """Of the dropped fields, those that nobody has looked at yet: a newer version of the source writes them."""
    totals: tuple[str, ...] = ()
    totals_since: datetime | None = None
    parts: Parts = field(default_factory=dict)
    needed: frozenset[str] = frozenset()
    finish: Callable[[Parts], dict[str, object]] = joined


@dataclass(frozen=True)
class Item:
    """One observation of something that changes: which thing it is, its values, the times that consent goes by.

    `key` names the thing; the device adds the observation's number and content to make the record's identity.
    `totals`: columns that sum up what was since `totals_since` (None: unknown); without history they do not leave
    if that was before the consent.
    """

    table: Table
    key: tuple[object, ...]
    values: dict[str, object]
    times: tuple[datetime | None, ...] = ()
    totals: tuple[str, ...] = ()
    totals_since: datetime | None = None


@dataclass(frozen=True)
class BadRow:
    """A row of a snapshot that cannot be read, and why: it stops no other row, and is told as a rejected line."""

    reason: Literal["torn", "nul_fill", "bad_utf8", "bad_type"]


@dataclass(frozen=True)
class Group:
    """Records of a snapshot that are passed over while nothing of them has changed: a database may hold years, and one
    row of it be new. `content`: what changes when one of them does. `number`: how many rows of the source they are."""

    key: str
    content: str
    number: int
    records: Callable[[], Iterable[Record]]


class Fields(dict[str, Any]):
    """A JSON object that remembers which of its fields were asked for: the rest is dropped, and counted."""

    def __init__(self, values: dict[str, Any]) -> None:
        super().__init__(values)
        self._asked: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        """The field's value, or the default."""
        self._asked.add(key)
        return super().get(key, default)

    @property
    def dropped(self) -> int:
        """How many fields nobody asked for."""
        return len(self.keys() - self._asked)

    def beside(self, known: frozenset[str]) -> int:
        """How many of them are none of those that are known, and dropped on purpose."""
        return len(self.keys() - self._asked - known)


class At(NamedTuple):
    """Where a line stands: its number from 1, the time of its file, how many bytes stand before it."""

    number: int
    modified_at: datetime | None
    position: int = 0


@dataclass(frozen=True, kw_only=True)
class Log:
    """One file that grows by lines.

    `kind` is a value of the contract's `source_kind`, `consent` of the kinds of sources that a consent names, `layout`
    the version of the source that keeps its files there.
    """

    path: Path
    kind: str
    consent: str
    is_record: Callable[[Json], bool]
    parse: Callable[[Json, At], Iterable[Record]]
    layout: str = "other"
    may_matter: Callable[[bytes], bool] = lambda _: True
    """Whether a line can hold a record: most cannot, and are passed over without being parsed."""
    is_unknown: Callable[[Json], bool] = lambda _: False
    """Whether an object of which no record was made is of a type that nobody has looked at yet."""
    is_unknown_line: Callable[[bytes], bool] = lambda _: False
    """The same of a line that cannot matter."""
    errors: Literal["strict", "replace"] = "strict"
    """Whether a line with bytes that are no text is rejected, or read with these replaced."""
    look_back: Callable[[bytes], None] | None = None
    """Is shown the lines that stand before a pass, where the meaning of a line depends on those before it."""
    is_copy: bool = False
    """Whether it is known to be a copy of a session's log."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Files that are rewritten in place, or a database: read whole, when one of them has changed.

    `read` gives what they say, or None if they cannot be read now: then what was seen before holds. It may raise
    FileNotFoundError, UnreadableError, CorruptError, UnknownLayoutError. `lives_with`: sessions with which it may leave
    although its own times lie before the consent. `is_counted`: whether it is a source of which coverage is told.
    """

    key: str
    """Which snapshot it is among those of its first file."""
    files: tuple[Path, ...]
    kind: str
    consent: str
    read: Callable[[], Iterable[Item | Record | Group | BadRow] | None]
    layout: str = "other"
    lives_with: tuple[str, ...] = ()
    is_counted: bool = True
    is_line: bool = False
    """Whether it is one line of a log: of one that cannot be read a rejected line is told."""


class FileState(NamedTuple):
    """How some files stood. `text` is another one after any of them came, went or was written to, moved or replaced.
    `changed_ns`: when that was done last, by the clock of the file system, in nanoseconds since 1970."""

    text: str = ""
    changed_ns: int = 0

    @classmethod
    def of(cls, found: Iterable[tuple[str, os.stat_result]]) -> "FileState":
        """The state of files by their names."""
        texts, changed_ns = [], 0
        for name, status in sorted(found):
            # Nobody can set the time of the last change: a file with the same one was not written to.
            changed = status.st_ctime_ns
            texts.append(f"{name}/{status.st_dev}/{status.st_ino}/{status.st_size}/{status.st_mtime_ns}/{changed}/")
            changed_ns = max(changed_ns, changed)
        return cls("".join(texts), changed_ns)

    def beside(self, folder: str, names: Iterable[str]) -> "FileState":
        """Of these files and of those of some names in a folder that is not listed."""
        found = []
        for name in names:
            try:
                found.append((name, os.lstat(f"{folder}/{name}")))
            except FileNotFoundError:
                continue
            except OSError:
                return NOT_LISTED
        others = FileState.of(found)
        return FileState(f"{self.text}/{others.text}", max(self.changed_ns, others.changed_ns))


NOT_LISTED = FileState(changed_ns=sys.maxsize)
"""Of files that could not be looked at."""


@dataclass(frozen=True)
class Reading:
    """What the device offers to a reader of snapshots.

    `scratch`: a folder of ours, for the copy of a database that does not open where it lies. `document`: reads a small
    JSON file of a kind; empty if it is absent, None if it could not be read (which is counted).
    """

    scratch: Path
    document: Callable[[Path, str], Json | None]


class FileSet(NamedTuple):
    """Files that are passed over together, without a look at each, while none has changed since a pass found nothing
    to do for them.

    `path`: where they lie. `said`: what else decides what is read of them, such as whether they are copies.
    `state`: of every file of which the logs and snapshots are made, before any of them is opened. `lives_with`: of all
    snapshots.
    """

    path: str
    said: str
    state: FileState
    logs: Callable[[], Iterable[Log]]
    snapshots: Callable[[Reading], Iterable[Snapshot]]
    lives_with: tuple[str, ...] = ()


@dataclass(frozen=True)
class Setting:
    """The device in which a home lies, and the kinds of sources that the consent covers: files of no other kind may be
    opened."""

    clock: Clock
    consented: frozenset[str]


@dataclass(frozen=True)
class Contents:
    """What may be read of a home. All logs are read before the first snapshot: they say which sessions are alive.

    `logs` and `snapshots` are looked at one by one in every pass, after those of the `file_sets`.
    """

    logs: list[Log]
    snapshots: Callable[[Reading], Iterator[Snapshot]]
    passed_over: Callable[[], Iterable[Path]] = tuple
    """Folders that look like a session's by the names in them and are not read: no known version keeps any there."""
    file_sets: Sequence[FileSet] = ()

    def all_logs(self) -> Iterator[Log]:
        """Every log."""
        for files in self.file_sets:
            yield from files.logs()
        yield from self.logs

    def all_snapshots(self, reading: Reading) -> Iterator[Snapshot]:
        """Every snapshot."""
        for files in self.file_sets:
            yield from files.snapshots(reading)
        yield from self.snapshots(reading)


class Runtime(Protocol):
    """One agent runtime."""

    name: str
    """Its value of the contract's `agent_runtime`."""
    title: str
    """As its vendor writes it."""
    versions: str
    """Which versions of it were looked at, for people."""

    def usual_homes(self) -> list[Path]:
        """Where its homes are on this machine when nobody names one: only those that exist."""

    def is_home(self, path: Path) -> bool:
        """Whether a folder is a home of it. Nothing but names is looked at."""

    def homes_in(self, home: Path) -> list[Path]:
        """A home and the homes of accounts within it."""

    def contents(self, home: Path, setting: Setting) -> Contents:
        """What may be read of a home: nothing else of it is ever opened."""
