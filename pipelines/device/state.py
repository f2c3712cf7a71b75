"""The device's one database: consent, checkpoints, staged rows, batches, counters. SQLite, one writer.

Every step of a record's way is one transaction here: what is read and how far, what is cut into a batch, what was
sealed, what was delivered. Nothing of the source's text is ever written, not even a path.
Does not belong here: deciding what to read (collect.py), files of the spool (spool.py).
"""

import hashlib
import json
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass, field, fields
from datetime import date, datetime
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal

from pipelines.contract.keys import is_keyed
from pipelines.device import blocks, migrations, usage
from pipelines.device.errors import DeviceError
from pipelines.device.lines import Checkpoint
from pipelines.device.readers.base import Part
from pipelines.device.redact import Row
from pipelines.errors import ExpectedError
from pipelines.failpoints import fp
from pipelines.home import BusyError, private_folder

Rejection = Literal["torn", "nul_fill", "bad_utf8", "too_long", "bad_type", "tail_abandoned"]
CLOCK_OFFSET = "clock_offset_seconds"
PASSED_OVER = "session_folders_passed_over"
WAITING = 0  # the `seq` of a staged row that no batch holds yet; batches count from 1


@dataclass
class Counts:
    """What became of the lines (or items) of one source in one run. seen = staged + duplicate + before consent +
    skipped + rejected, and rejected is the sum of its reasons (`reject` keeps both). `unknown`: of the skipped, lines
    of a type that no version we know of writes; `fields_unknown`: the same of fields. `layout`: the source's
    version. `runtime`: whose it is.
    """

    seen: int = 0
    staged: int = 0
    duplicate: int = 0
    before_consent: int = 0
    skipped: int = 0
    rejected: int = 0
    rejected_torn: int = 0
    rejected_nul_fill: int = 0
    rejected_bad_utf8: int = 0
    rejected_too_long: int = 0
    rejected_bad_type: int = 0
    rejected_tail_abandoned: int = 0
    lost_bytes: int = 0
    salvaged: int = 0
    turns_seen: int = 0
    turns_duplicate: int = 0
    turns_rejected: int = 0
    fields_dropped: int = 0
    unknown: int = 0
    fields_unknown: int = 0
    bytes: int = 0
    generation: int = 0
    outcome: str = "read"
    layout: str | None = None
    runtime: str | None = None

    def reject(self, reason: Rejection) -> None:
        """Count a rejected line under its reason."""
        self.rejected += 1
        setattr(self, f"rejected_{reason}", getattr(self, f"rejected_{reason}") + 1)

    def add(self, other: "Counts") -> None:
        """Add another count of the same source in the same run. Trouble is not forgotten over what went well."""
        for name in _SUMMED:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.bytes, self.generation = max(self.bytes, other.bytes), max(self.generation, other.generation)
        self.layout = other.layout or self.layout
        self.runtime = other.runtime or self.runtime
        if other.outcome != "read":
            self.outcome = other.outcome


_SUMMED = tuple(
    found.name for found in fields(Counts) if found.name not in ("bytes", "generation", "outcome", "layout", "runtime")
)


@dataclass(frozen=True)
class Unread:
    """Bytes of a source that were seen and not read: torn, or held back while the spool is full.

    `home`: the home it lies in. `size`: of the file when it was seen. `bytes`: how many of them wait.
    """

    home: str
    kind: str
    device: int
    inode: int
    size: int
    bytes: int


@dataclass(frozen=True)
class Trouble:
    """What is known of a store that did not take the batch `seq`.

    `tries`: puts of that batch that failed, over all runs. `failures`: how many in a row; the delay grows with it.
    `stored`: keys of the batch that are in the store already. `is_refused`: it said no, `since` when.
    """

    seq: int
    next_at: datetime
    since: datetime
    tries: int = 0
    failures: int = 0
    is_refused: bool = False
    stored: tuple[str, ...] = ()


_ENCODER = json.JSONEncoder(default=str, ensure_ascii=True, separators=(",", ":"))


def _is_earlier(owner: str, other: str | None) -> bool:
    """Whether a session began before another one, by their ids. A generated id holds the time at which it was made; a
    keyed name says nothing of age and comes last."""
    return other is not None and (is_keyed(owner), owner) < (is_keyed(other), other)


@contextmanager
def opened(path: Path) -> "Iterator[State]":
    """The state in a file. Raises DeviceError if it is damaged, which may show at any page, or cannot be written."""
    try:
        with closing(State(path)) as state:
            yield state
    except (ExpectedError, BusyError, OSError):
        raise
    except Exception as error:
        if _is_damaged(path, error):
            raise _set_aside(path) from error
        if isinstance(error, sqlite3.DatabaseError):
            text = f"the device's state cannot be written: {error}; free some space and try again"
            raise DeviceError(text) from error
        raise


def _is_damaged(path: Path, error: Exception) -> bool:
    """Whether a state is no database or a broken one, or lacks columns that its version has: asked after an unexpected
    error, because bytes that changed on a disk may end in any. A state in use, on a full disk, or of an earlier version
    is not damaged."""
    if isinstance(error, sqlite3.OperationalError) and not hasattr(error, "sqlite_errorname"):
        return True  # not SQLite's, but of its driver: a text that is no UTF-8
    if not path.exists():
        return False
    try:
        with closing(sqlite3.connect(path, timeout=5)) as found, closing(sqlite3.connect(MEMORY)) as whole:
            migrations.migrate(whole)
            said = found.execute("PRAGMA integrity_check(1000000)").fetchall()
            # SQLite 3.40 says this of full columns too, in tables without row ids.
            is_sound = all(text == "ok" or text.startswith("NULL value in ") for (text,) in said)
            return not is_sound or _lacks_columns(found, whole)
    except UnicodeDecodeError:
        return True
    except sqlite3.DatabaseError as found_error:
        # SQLITE_ERROR: these questions are well formed, so it is about the file (an unknown format).
        name = getattr(found_error, "sqlite_errorname", "SQLITE_CORRUPT")
        return name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_ERROR"))


def _lacks_columns(found: sqlite3.Connection, whole: sqlite3.Connection) -> bool:
    if migrations.version_of(found) != migrations.version_of(whole):
        return False  # of an earlier version; what it lacks is made by the migrations
    present = migrations.columns(found)
    return any(not set(names) <= set(present.get(table, ())) for table, names in migrations.columns(whole).items())


def _set_aside(path: Path) -> DeviceError:
    """Move a damaged state out of the way, and what to tell the owner.

    It held the consent, so nothing is sent without a new one; then everything is read anew and counted once.
    """
    for file in (path, path.with_name(f"{path.name}-wal")):
        if file.exists():
            file.replace(file.with_name(f"{file.name}.damaged"))
    path.with_name(f"{path.name}-shm").unlink(missing_ok=True)
    return DeviceError(
        f"the state of this device was damaged and is set aside as {path.name}.damaged: nothing was sent; grant consent"
        " again, then everything is read anew and counted once"
    )


FORGOTTEN = (
    "baseline", "history", "source", "unread", "unchanged", "snapshot", "seen", "variant", "observed", "session",
    "staged", "waiting", "batch", "counter", "trouble", "run", "run_source", *usage.FORGOTTEN,
)  # fmt: skip
MAX_SHARED_SECONDS = 1.0  # what a kill can undo
MAX_UNWRITTEN = 1_000  # staged rows held in memory within a transaction
MAX_REMEMBERED = 10_000  # sessions, and records looked up, that are kept in memory
Seen = tuple[str | None, bytes | None]
"""What is known of a record that was seen: its owner and its variant."""
MEMORY = Path(":memory:")


@dataclass
class _Unwritten:
    """What the present transaction staged and did not write yet."""

    rows: dict[str, dict[str, Row]] = field(default_factory=dict)
    """Rows, by table and by the record's id."""
    number: int = 0
    """How many they are."""
    correctable: set[str] = field(default_factory=set)
    """Of their records those of which a better row may come."""
    replaced: dict[int, set[str]] = field(default_factory=dict)
    """By block, the records of waiting rows that these take the place of."""
    seen: dict[bytes, Seen] = field(default_factory=dict)
    parts: dict[bytes, dict[str, Part]] = field(default_factory=dict)


@dataclass
class _Known:
    """What was looked up in the database, which no other process changes."""

    seen: dict[bytes, Seen | None] = field(default_factory=dict)
    """None for a record that was not seen."""
    sessions: dict[str, tuple[str, bool]] = field(default_factory=dict)
    """The users of sessions, and whether records of them may leave."""
    salt: bytes | None = None
    has_variants: bool | None = None


class State:
    """The state database, opened by one process at a time (a lock file beside it says by whom)."""

    def __init__(self, path: Path) -> None:
        if path != MEMORY:
            private_folder(path.parent)
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))  # nobody else may read it, from its first byte on
        self._shared_since: float | None = None
        self._unwritten = _Unwritten()
        self._known = _Known()
        self.changed_sessions: set[str] = set()
        """Sessions of which rows were staged or taken back since it was opened; whoever asks may empty it."""
        self._db = sqlite3.connect(path, isolation_level=None, timeout=5)
        try:
            # FULL: a checkpoint that survives a loss of power without its rows would lose them for ever.
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON", "fullfsync=ON"):
                self._db.execute(f"PRAGMA {pragma}")
            migrations.migrate(self._db)
        except (sqlite3.DatabaseError, UnicodeDecodeError, DeviceError):
            self._db.close()
            raise

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def copy_from(self, source: sqlite3.Connection) -> None:
        """Take over another state, for a look at what would happen. Raises DeviceError if a newer program wrote it."""
        source.backup(self._db)
        migrations.migrate(self._db)
        self._known = _Known()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Let steps that follow each other share a transaction: each is whole, so they may come true together.

        Waiting for the disk after each of thousands of small files would take longer than reading them.
        """
        with self.step():
            self._shared_since = time.monotonic()
            try:
                yield
            finally:
                self._shared_since = None

    @contextmanager
    def step(self) -> Iterator[None]:
        """One step of the protocol: all of it or nothing."""
        if self._shared_since is not None:
            yield
            if time.monotonic() - self._shared_since > MAX_SHARED_SECONDS:
                self._write()
                self._db.execute("COMMIT")
                fp("state.shared_commit")
                self._db.execute("BEGIN IMMEDIATE")
                self._shared_since = time.monotonic()
            return
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._write()
            fp("state.before_commit")
            self._db.execute("COMMIT")
        except BaseException:
            self._unwritten, self._known = _Unwritten(), _Known()
            if self._db.in_transaction:  # a full disk may have rolled back already; a second error would hide the first
                self._db.execute("ROLLBACK")
            raise
        fp("state.after_commit")

    def _write(self) -> None:
        """Write what was staged since the last writing: many rows at once cost a fraction of one by one."""
        new, self._unwritten = self._unwritten, _Unwritten()
        self._db.executemany(
            "INSERT INTO seen VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET owner = ?2, variant = ?3",
            [(key, *seen) for key, seen in new.seen.items()],
        )
        self._db.executemany(
            "INSERT OR REPLACE INTO observed VALUES (?, ?)",
            [
                (key, _ENCODER.encode({n: (p.rank, p.values) for n, p in parts.items()}))
                for key, parts in new.parts.items()
            ],
        )
        replaced = self._take(new.replaced)
        for table, rows in new.rows.items():
            block = self._db.execute(
                "INSERT INTO staged (seq, table_name, rows, data) VALUES (?, ?, ?, ?)",
                (WAITING, table, len(rows), blocks.pack(table, list(rows.values()))),
            ).lastrowid
            waiting = [(bytes.fromhex(record_id), block) for record_id in rows if record_id in new.correctable]
            self._db.executemany("INSERT INTO waiting VALUES (?, ?)", waiting)
            changed = (*rows.values(), *replaced.get(table, ()))
            self.changed_sessions.update(row["session_id"] for row in changed if row.get("session_id"))
            if table in usage.TABLES:
                usage.staged(self._db, table, list(rows.values()), replaced=replaced.get(table, ()))

    def _take(self, taken: Mapping[int, set[str]]) -> dict[str, list[Row]]:
        """Take rows of some records out of the blocks in which they wait; these rows, by table."""
        found: dict[str, list[Row]] = {}
        for block, record_ids in taken.items():
            name, data = self._db.execute("SELECT table_name, data FROM staged WHERE block = ?", (block,)).fetchone()
            left, rows = blocks.without(name, data, record_ids)
            found.setdefault(name, []).extend(rows)
            if left is None:
                self._db.execute("DELETE FROM staged WHERE block = ?", (block,))
            else:
                changed = (left, len(rows), block)
                self._db.execute("UPDATE staged SET data = ?, rows = rows - ? WHERE block = ?", changed)
        return found

    def value(self, name: str) -> str | None:
        """A named value of the device, such as its epoch."""
        row = self._db.execute("SELECT value FROM device WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def set_value(self, name: str, value: str) -> None:
        """Keep a named value."""
        self._db.execute("INSERT OR REPLACE INTO device VALUES (?, ?)", (name, value))

    # consent -----------------------------------------------------------------------------------------------------

    def add_consent(self, consent_id: str, state: str, at: datetime, history: str | None, contract: str | None) -> None:
        """Write a line into the consent book. The book only grows."""
        self._db.execute(
            "INSERT INTO consent VALUES (?, ?, ?, ?, ?)", (consent_id, state, at.isoformat(), history, contract)
        )

    def last_consent(self) -> tuple[str, str, str, str | None, str | None] | None:
        """The newest line of the consent book."""
        row: tuple[str, str, str, str | None, str | None] | None = self._db.execute(
            "SELECT consent_id, state, at, history, contract_hash FROM consent ORDER BY rowid DESC LIMIT 1"
        ).fetchone()
        return row

    def set_scope(self, consent_id: str, homes: list[str] | None, sources: list[str]) -> None:
        """Keep what a grant covers: keyed hashes of homes (None: all), kinds of sources."""
        told = None if homes is None else json.dumps(homes)
        self._db.execute("INSERT INTO consent_scope VALUES (?, ?, ?)", (consent_id, told, json.dumps(sources)))

    def scope(self, consent_id: str) -> tuple[list[str] | None, list[str]] | None:
        """What a grant covers."""
        row = self._db.execute(
            "SELECT homes, sources FROM consent_scope WHERE consent_id = ?", (consent_id,)
        ).fetchone()
        return (None if row[0] is None else json.loads(row[0]), json.loads(row[1])) if row else None

    def clear_baseline(self) -> None:
        """Forget what there was at an earlier consent."""
        self._db.execute("DELETE FROM baseline")
        self._db.execute("DELETE FROM history")

    def add_request(self, make: Callable[[int], tuple[str, bytes]]) -> None:
        """Put a request of the owner into the outbox; `make` gives its key and body for its number."""
        seq = int(self._db.execute("SELECT coalesce(max(seq), 0) + 1 FROM outbox").fetchone()[0])
        self._db.execute("INSERT INTO outbox VALUES (?, ?, ?, NULL)", (seq, *make(seq)))

    def open_requests(self) -> list[tuple[int, str, bytes]]:
        """Requests that have not reached the store, oldest first."""
        return self._db.execute("SELECT seq, key, body FROM outbox WHERE sent_at IS NULL ORDER BY seq").fetchall()

    def request_sent(self, seq: int, at: datetime) -> None:
        """A request is in the store."""
        self._db.execute("UPDATE outbox SET sent_at = ? WHERE seq = ?", (at.isoformat(), seq))

    def unconfirmed_requests(self) -> list[tuple[int, str, bytes]]:
        """Requests that are in the store and of which the server has not said that they were carried out."""
        return self._db.execute(
            "SELECT seq, key, body FROM outbox WHERE sent_at IS NOT NULL"
            " AND seq NOT IN (SELECT seq FROM confirmation) ORDER BY seq"
        ).fetchall()

    def confirm_request(self, seq: int, receipt: bytes) -> None:
        """Keep the server's receipt for a request."""
        self._db.execute("INSERT OR IGNORE INTO confirmation VALUES (?, ?)", (seq, receipt))

    def requests(self) -> list[tuple[str, bytes, str | None, bytes | None]]:
        """Every request with its key, its body, when it reached the store, and the server's receipt; oldest first."""
        return self._db.execute(
            "SELECT key, body, sent_at, receipt FROM outbox LEFT JOIN confirmation USING (seq) ORDER BY seq"
        ).fetchall()

    def add_baseline(self, sizes: Iterable[tuple[str, int]], history: Iterable[str]) -> None:
        """What there was, in one home, when consent without history began there."""
        self._db.executemany("INSERT OR REPLACE INTO baseline VALUES (?, ?)", sizes)
        self._db.executemany("INSERT OR IGNORE INTO history VALUES (?)", ((bytes.fromhex(r),) for r in history))

    def baseline_size(self, source: str) -> int:
        """How long a file was when consent was granted; 0 if it was not there."""
        row = self._db.execute("SELECT size FROM baseline WHERE source = ?", (source,)).fetchone()
        return row[0] if row else 0

    def has_baseline(self, source: str) -> bool:
        """Whether a source was looked at for the baseline."""
        return self._db.execute("SELECT 1 FROM baseline WHERE source = ?", (source,)).fetchone() is not None

    def is_history(self, record_id: str) -> bool:
        """Whether the record was there when consent was granted."""
        found = self._db.execute("SELECT 1 FROM history WHERE record_id = ?", (bytes.fromhex(record_id),)).fetchone()
        return found is not None

    def forget_all(self) -> None:
        """Empty everything that was read or is about to leave; the consent book and the enrolment stay."""
        self._unwritten, self._known = _Unwritten(), _Known()
        for table in FORGOTTEN:
            self._db.execute(f"DELETE FROM {table}")

    # reading -----------------------------------------------------------------------------------------------------

    def checkpoint(self, source: str) -> Checkpoint:
        """How far a source has been read."""
        row = self._db.execute(
            "SELECT device, inode, generation, size, modified_ns, offset, line, head_length, head_hash, tail_length,"
            " tail_hash, given_up FROM source WHERE source = ?",
            (source,),
        ).fetchone()
        return Checkpoint(*row) if row else Checkpoint()

    def set_checkpoint(self, source: str, checkpoint: Checkpoint) -> None:
        """Move a checkpoint, in the step that stages what lies before it."""
        self._db.execute(
            f"INSERT OR REPLACE INTO source VALUES ({', '.join('?' * 13)})", (source, *astuple(checkpoint))
        )

    def forget_checkpoint(self, source: str) -> None:
        """Read a source again from its start: what is known already counts as a duplicate."""
        self._db.execute("DELETE FROM source WHERE source = ?", (source,))

    def unread(self) -> dict[str, Unread]:
        """Sources of which bytes were seen and not read yet."""
        rows = self._db.execute("SELECT source, home, kind, device, inode, size, bytes FROM unread")
        return {source: Unread(*facts) for source, *facts in rows}

    def set_unread(self, source: str, unread: Unread | None) -> None:
        """Keep how much of a source is there and not read; None: nothing, or it is gone."""
        self._db.execute("DELETE FROM unread WHERE source = ?", (source,))
        if unread is not None:
            self._db.execute(f"INSERT INTO unread VALUES ({', '.join('?' * 7)})", (source, *astuple(unread)))

    def unchanged(self, home: str) -> bytes:
        """The digests of the file sets of a home for which there was nothing to do (unchanged.py)."""
        row = self._db.execute("SELECT digests FROM unchanged WHERE home = ?", (home,)).fetchone()
        return bytes(row[0]) if row else b""

    def set_unchanged(self, home: str, digests: bytes) -> None:
        """Keep them, in place of those before."""
        self._db.execute("INSERT OR REPLACE INTO unchanged VALUES (?, ?)", (home, digests))

    def snapshot(self, item: str) -> tuple[str, int]:
        """The signature last seen of a small file or a row, and how often it has changed."""
        row = self._db.execute("SELECT signature, observation FROM snapshot WHERE item = ?", (item,)).fetchone()
        return (row[0], row[1]) if row else ("", 0)

    def set_snapshot(self, item: str, signature: str, observation: int) -> None:
        """Keep the signature of what was seen."""
        self._db.execute("INSERT OR REPLACE INTO snapshot VALUES (?, ?, ?)", (item, signature, observation))

    def variant_of(self, names: tuple[object, ...]) -> bytes:
        """A hash of names under a salt of this state, which no enrolment and no key changes. It never leaves."""
        if self._known.salt is None:
            salt = self.value("variant_salt")
            if salt is None:
                salt = secrets.token_hex(16)
                self.set_value("variant_salt", salt)
            self._known.salt = salt.encode()
        text = "\x1f".join(["" if name is None else str(name) for name in names])
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), key=self._known.salt, digest_size=8).digest()

    def _look_up(self, key: bytes) -> Seen | None:
        """What is known of a record; None if it was not seen."""
        seen = self._known.seen
        if key not in seen:
            if len(seen) >= MAX_REMEMBERED:
                self._write()
                seen.clear()
            seen[key] = self._db.execute("SELECT owner, variant FROM seen WHERE record_id = ?", (key,)).fetchone()
        return seen[key]

    def _see(self, key: bytes, owner: str | None, variant: bytes | None) -> None:
        self._known.seen[key] = self._unwritten.seen[key] = (owner, variant)

    def is_seen(self, record_id: str, variant: bytes | None = None) -> bool:
        """Whether a record was staged before, and if `variant` is given, not as another variant of it."""
        found = self._look_up(bytes.fromhex(record_id))
        return found is not None and (variant is None or found[1] in (None, variant))

    def ordinal(self, record_id: str, variant: bytes) -> int:
        """Which of the records that share an identity but for a name it is: 0 for the first that was seen, and so on.

        A record of before variants were kept is the first one of which that can be: what is read again is read in the
        order in which it was.
        """
        key = bytes.fromhex(record_id)
        given: dict[bytes, int] = {}
        if self._has_variants():
            select = "SELECT variant, ordinal FROM variant WHERE record_id = ?"
            given = dict(self._db.execute(select, (key,)).fetchall())
        if variant in given:
            return given[variant]
        first = self._look_up(key)
        if first is not None and first[1] in (None, variant):
            return 0
        if first is None and not given:
            return 0
        ordinal = 1 + max([0, *given.values()])
        self.set_ordinal(record_id, variant, ordinal)
        return ordinal

    def set_ordinal(self, record_id: str, variant: bytes, ordinal: int) -> None:
        """Keep the number of a variant that `seen` does not tell: every one but a first one that has this identity."""
        self._db.execute("INSERT OR IGNORE INTO variant VALUES (?, ?, ?)", (bytes.fromhex(record_id), variant, ordinal))
        self._known.has_variants = True

    def _has_variants(self) -> bool:
        if self._known.has_variants is None:
            self._known.has_variants = self._db.execute("SELECT 1 FROM variant LIMIT 1").fetchone() is not None
        return self._known.has_variants

    def stage(self, table: str, row: Row, *, owner: str | None = None, variant: bytes | None = None) -> bool:
        """Stage a row to leave, unless its record was seen before. Whether it was new.

        `variant`: a hash of the names and numbers that tell it from other records of that identity (`ordinal`).
        `owner` is the session of a record that only its folder tells: a fork's copy may be read before its original,
        and the earliest session that holds the record owns it. Then the row is staged once more, as a correction.
        """
        key = bytes.fromhex(row["record_id"])
        found = self._look_up(key)
        if found is None:
            self._see(key, owner, variant)
        else:
            last, known = found[0], found[1] or variant
            if known != found[1]:
                self._see(key, last, known)
            if owner is None or not _is_earlier(owner, last):
                return False
            self._see(key, owner, known)
        self._put(table, row, is_new=found is None, is_correctable=owner is not None)
        return found is None

    def _put(self, table: str, row: Row, *, is_new: bool = False, is_correctable: bool = True) -> bool:
        """Have a row wait for the next batch; whether one of the same record waited, whose place it takes. A row that
        stands in a batch already cut stays there."""
        record_id = row["record_id"]
        new = self._unwritten
        rows = new.rows.setdefault(table, {})
        is_replaced = record_id in rows
        new.number += not is_replaced
        if not (is_new or is_replaced):
            key = bytes.fromhex(record_id)
            found = self._db.execute("SELECT block FROM waiting WHERE record_id = ?", (key,)).fetchone()
            if found is not None:
                is_replaced = True
                self._db.execute("DELETE FROM waiting WHERE record_id = ?", (key,))
                new.replaced.setdefault(int(found[0]), set()).add(record_id)
        rows[record_id] = row
        if is_correctable:
            new.correctable.add(record_id)
        if new.number >= MAX_UNWRITTEN or not self._db.in_transaction:
            self._write()
        return is_replaced

    def parts(self, record_id: str) -> dict[str, Part]:
        """What is known of a record that stands on several lines, its values as they may leave."""
        key = bytes.fromhex(record_id)
        kept = self._unwritten.parts.get(key)  # its lines follow each other: most are read again within a moment
        if kept is not None:
            return dict(kept)
        row = self._db.execute("SELECT parts FROM observed WHERE record_id = ?", (key,)).fetchone()
        found = json.loads(row[0]) if row else {}
        return {name: Part(tuple(rank), values) for name, (rank, values) in found.items()}

    def set_parts(self, record_id: str, parts: Mapping[str, Part]) -> None:
        """Keep the best that is known of such a record."""
        self._unwritten.parts[bytes.fromhex(record_id)] = dict(parts)
        if len(self._unwritten.parts) >= MAX_UNWRITTEN or not self._db.in_transaction:
            self._write()

    def stage_again(self, table: str, row: Row) -> bool:
        """Stage a row of a record of which more is known now. Whether it is one more to send, and takes no waiting
        one's place."""
        return not self._put(table, row)

    def bind_session(self, session_id: str, user_id: str, *, is_live: bool) -> str:
        """The user of a session: who was enrolled when it was first seen. `is_live`: a record of it may leave."""
        known = self._known.sessions.get(session_id)
        if known is None or (is_live and not known[1]):
            self._db.execute(
                "INSERT INTO session VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET is_live = is_live OR excluded.is_live",
                (session_id, user_id, is_live),
            )
            user, live = self._db.execute(
                "SELECT user_id, is_live FROM session WHERE session_id = ?", (session_id,)
            ).fetchone()
            if len(self._known.sessions) >= MAX_REMEMBERED:
                self._known.sessions.clear()
            known = self._known.sessions[session_id] = (str(user), bool(live))
        return known[0]

    def is_live(self, session_id: str) -> bool:
        """Whether a record of the session may leave (it lived after the consent)."""
        row = self._db.execute("SELECT is_live FROM session WHERE session_id = ?", (session_id,)).fetchone()
        return bool(row and row[0])

    def live_sessions(self) -> frozenset[str]:
        """Every such session."""
        return frozenset(session for (session,) in self._db.execute("SELECT session_id FROM session WHERE is_live"))

    # runs --------------------------------------------------------------------------------------------------------

    def begin_run(self, at: datetime) -> int:
        """Open the book of a new run of the uploader; its number."""
        self._db.execute("INSERT INTO run (started_at, is_reported) VALUES (?, 0)", (at.isoformat(),))
        return int(self._db.execute("SELECT max(run) FROM run").fetchone()[0])

    def count(self, run: int, source: str, kind: str, counts: Counts) -> None:
        """Add to what a run did with a source, in the step that did it."""
        row = self._db.execute("SELECT counts FROM run_source WHERE run = ? AND source = ?", (run, source)).fetchone()
        total = Counts(**json.loads(row[0])) if row else Counts()
        total.add(counts)
        self._db.execute(
            "INSERT OR REPLACE INTO run_source VALUES (?, ?, ?, ?)", (run, source, kind, json.dumps(vars(total)))
        )

    def unreported_runs(self) -> list[tuple[int, str]]:
        """Runs whose report has not been staged: the present one, and any that died."""
        return self._db.execute("SELECT run, started_at FROM run WHERE NOT is_reported ORDER BY run").fetchall()

    def run_sources(self, run: int) -> list[tuple[str, str, Counts]]:
        """What a run did with each source."""
        rows = self._db.execute("SELECT source, kind, counts FROM run_source WHERE run = ? ORDER BY source", (run,))
        return [(source, kind, Counts(**json.loads(counts))) for source, kind, counts in rows]

    def end_run(self, run: int, counters: Mapping[str, int]) -> None:
        """Close the book of a run, in the step that stages its report. The next batch's manifest says its counters."""
        self._db.executemany(
            f"INSERT INTO counter VALUES ({WAITING}, ?, ?) ON CONFLICT DO UPDATE SET value = value + excluded.value",
            counters.items(),
        )
        self._db.execute("UPDATE run SET is_reported = 1 WHERE run = ?", (run,))
        self._db.execute("DELETE FROM run_source WHERE run = ?", (run,))

    # batches -----------------------------------------------------------------------------------------------------

    def staged_rows(self) -> int:
        """How many rows wait to be cut into a batch."""
        found = self._db.execute(f"SELECT coalesce(sum(rows), 0) FROM staged WHERE seq = {WAITING}").fetchone()
        return int(found[0])

    def cut(self, limit: int, at: datetime) -> int | None:
        """Give the rows that have waited longest, up to `limit`, to a new batch; its number, or None if nothing waits.

        Membership is written down before any file exists, so that a batch can be made again.
        """
        waiting = self._db.execute(f"SELECT block, rows FROM staged WHERE seq = {WAITING} ORDER BY block").fetchall()
        if not waiting:
            return None
        seq = int(self._db.execute("SELECT coalesce(max(seq), 0) + 1 FROM batch").fetchone()[0])
        last, left = 0, limit
        for block, rows in waiting:
            if rows > left:
                self._split(block, left, seq)
                break
            last, left = block, left - rows
        self._db.execute(f"UPDATE staged SET seq = ? WHERE seq = {WAITING} AND block <= ?", (seq, last))
        self._db.execute("DELETE FROM waiting WHERE block <= ?", (last,))
        self._db.execute("INSERT INTO batch (seq, state, cut_at) VALUES (?, 'cut', ?)", (seq, at.isoformat()))
        self._db.execute(f"UPDATE counter SET seq = ? WHERE seq = {WAITING}", (seq,))
        # As it is known now: a batch that is sealed again must come out the same.
        self._db.execute(
            "INSERT INTO counter SELECT ?, name, CAST(value AS INTEGER) FROM device WHERE name = ?", (seq, CLOCK_OFFSET)
        )
        for table in usage.TABLES:
            summed = (row for data in self.blocks_of(seq, table) for row in blocks.rows_in(data, usage.COLUMNS))
            usage.cut(self._db, seq, table, summed)
        return seq

    def _split(self, block: int, rows: int, seq: int) -> None:
        """Give the first rows of a block to a batch, behind its others."""
        if not rows:
            return
        table, data = self._db.execute("SELECT table_name, data FROM staged WHERE block = ?", (block,)).fetchone()
        head, tail = blocks.split(data, rows)
        insert = "INSERT INTO staged (seq, table_name, rows, data) VALUES (?, ?, ?, ?)"
        self._db.execute(insert, (seq, table, rows, head))
        self._db.execute("UPDATE staged SET rows = rows - ?, data = ? WHERE block = ?", (rows, tail, block))
        ids = [(bytes.fromhex(row["record_id"]),) for row in blocks.rows_in(head, ("record_id",))]
        self._db.executemany("DELETE FROM waiting WHERE record_id = ?", ids)

    def counters_of(self, seq: int) -> dict[str, int]:
        """The counters of the runs that ended between the batch before and this one."""
        rows = self._db.execute(
            "SELECT name, value FROM counter WHERE seq = ? AND name <> ? ORDER BY name", (seq, CLOCK_OFFSET)
        )
        return dict(rows.fetchall())

    def clock_offset_of(self, seq: int) -> int | None:
        """How many seconds the store's clock was ahead of this machine's when a batch was cut, if that is known."""
        row = self._db.execute("SELECT value FROM counter WHERE seq = ? AND name = ?", (seq, CLOCK_OFFSET)).fetchone()
        return row[0] if row else None

    def tables_of(self, seq: int) -> list[str]:
        """The tables of which a cut batch has rows."""
        found = self._db.execute("SELECT DISTINCT table_name FROM staged WHERE seq = ? ORDER BY 1", (seq,))
        return [table for (table,) in found]

    def blocks_of(self, seq: int, table: str) -> Iterator[bytes]:
        """The blocks of a cut batch of one table, in the order in which their rows were staged, one after the other."""
        found = self._db.execute(
            "SELECT data FROM staged WHERE seq = ? AND table_name = ? ORDER BY block", (seq, table)
        )
        return (data for (data,) in found)

    def waiting_rows(
        self, tables: Collection[str] | None = None, sessions: Collection[str] | None = None
    ) -> dict[str, list[Row]]:
        """Every row that has not been delivered yet, by table, in the order of their ids; of some tables, which have
        a `session_id` if those of some sessions are asked for."""
        found: dict[str, list[Row]] = {}
        for table, data in self._waiting(tables):
            found.setdefault(table, []).extend(blocks.whole_rows_in(table, data, sessions))
        for rows in found.values():
            rows.sort(key=itemgetter("record_id"))
        return found

    def waiting_columns(self, table: str, columns: Collection[str]) -> list[Row]:
        """Some columns of the rows of a table that have not been delivered yet."""
        return [row for _, data in self._waiting([table]) for row in blocks.rows_in(data, columns)]

    def _waiting(self, tables: Collection[str] | None) -> Iterator[tuple[str, bytes]]:
        for table, block in self._db.execute(
            "SELECT table_name, block FROM staged ORDER BY table_name, block"
        ).fetchall():
            if tables is None or table in tables:
                yield table, self._db.execute("SELECT data FROM staged WHERE block = ?", (block,)).fetchone()[0]

    def drop_waiting(self, *, but: Collection[str]) -> int:
        """Forget, in a step, the waiting rows of all tables but these; how many blocks are left."""
        marks = ", ".join("?" * len(but))
        self._db.execute(f"DELETE FROM staged WHERE table_name NOT IN ({marks})", tuple(but))
        self._db.execute("DELETE FROM waiting WHERE block NOT IN (SELECT block FROM staged)")
        return int(self._db.execute("SELECT count(*) FROM staged").fetchone()[0])

    def batches(self, state: str) -> list[dict[str, Any]]:
        """Batches in one state (`cut`, `sealed`, `delivered`), oldest first."""
        cursor = self._db.execute("SELECT * FROM batch WHERE state = ? ORDER BY seq", (state,))
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]

    def last_manifest(self, before: int) -> str:
        """The hash of the manifest before a batch; empty for the first."""
        row = self._db.execute("SELECT manifest_sha256 FROM batch WHERE seq = ?", (before - 1,)).fetchone()
        return str(row[0]) if row else ""

    def sealed(self, seq: int, *, key: str, sha256: str, objects: list[dict[str, Any]], rows: int, size: int) -> None:
        """A batch's files are safe in the spool. Its rows stay until it is delivered: a damaged file is made again."""
        self._db.execute(
            "UPDATE batch SET state = 'sealed', manifest_key = ?, manifest_sha256 = ?, objects = ?, rows = ?, bytes = ?"
            " WHERE seq = ?",
            (key, sha256, json.dumps(objects), rows, size, seq),
        )

    def reopen(self, seq: int) -> None:
        """Seal a batch and those after it again: a file is damaged, and each manifest holds the hash of the last."""
        self._db.execute("UPDATE batch SET state = 'cut' WHERE state = 'sealed' AND seq >= ?", (seq,))

    def delivered(self, seq: int, at: datetime) -> None:
        """A batch's manifest is in the store: its rows may go."""
        self._db.execute("UPDATE batch SET state = 'delivered', delivered_at = ? WHERE seq = ?", (at.isoformat(), seq))
        self._db.execute("DELETE FROM staged WHERE seq = ?", (seq,))
        self._db.execute("DELETE FROM counter WHERE seq = ?", (seq,))

    def trouble(self, store: str) -> Trouble | None:
        """What is known of a store that did not take a batch."""
        row = self._db.execute(
            "SELECT seq, next_at, since, tries, failures, is_refused, stored FROM trouble WHERE store = ?", (store,)
        ).fetchone()
        if row is None:
            return None
        seq, next_at, since, tries, failures, is_refused, stored = row
        times = datetime.fromisoformat(next_at), datetime.fromisoformat(since)
        return Trouble(seq, *times, tries, failures, bool(is_refused), tuple(json.loads(stored)))

    def set_trouble(self, store: str, trouble: Trouble | None) -> None:
        """Keep what is known of a store, or forget it."""
        self._db.execute("DELETE FROM trouble WHERE store = ?", (store,))
        if trouble is not None:
            times = trouble.next_at.isoformat(), trouble.since.isoformat()
            facts = trouble.tries, trouble.failures, trouble.is_refused, json.dumps(trouble.stored)
            row = (store, trouble.seq, *times, *facts)
            self._db.execute("INSERT INTO trouble VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)

    def prune_usage(self, *, before: date, counted: Iterable[tuple[int, int]]) -> None:
        """Forget what this device used that no budget asks for any more."""
        usage.prune(self._db, before=before, counted=counted)

    def totals(self) -> dict[str, int]:
        """Rows staged, batches waiting, batches and rows and bytes delivered."""
        staged = int(self._db.execute("SELECT coalesce(sum(rows), 0) FROM staged").fetchone()[0])
        waiting = int(self._db.execute("SELECT count(*) FROM batch WHERE state <> 'delivered'").fetchone()[0])
        done = self._db.execute(
            "SELECT count(*), coalesce(sum(rows), 0), coalesce(sum(bytes), 0) FROM batch WHERE state = 'delivered'"
        ).fetchone()
        return {
            "rows_staged": staged, "batches_waiting": waiting,
            "batches_delivered": done[0], "rows_delivered": done[1], "bytes_delivered": done[2],
        }  # fmt: skip
