"""OpenClaw's databases: an agent's transcripts and sessions from 2026.8.1 on.

The same file holds the keys of providers (`auth_profile_store`) and whole prompts: SQLite itself denies whatever is not
named here. Does not belong here: what a line of a transcript means (transcripts.py).
"""

import io
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa

from pipelines.device import lines
from pipelines.device.readers import sqlite
from pipelines.device.readers.base import BadRow, CorruptError, Item, Json, Record
from pipelines.device.readers.openclaw import sessions, transcripts

MAX_UNPACKED = 256 << 20  # one transcript; beyond it a blob is no transcript of a person's agent
SESSION_NODES = frozenset({
    "session_key", "current_session_id", "status", "created_via", "parent_session_key", "spawned_by",
    "fork_source_session_id", "created_at", "updated_at",
})  # fmt: skip
SESSION_WINDOWS = frozenset({
    "session_id", "session_key", "previous_session_id", "started_at", "ended_at", "status", "channel", "created_at",
})  # fmt: skip
ALLOWED: sqlite.Allowed = {
    "session_nodes": SESSION_NODES,
    "session_windows": SESSION_WINDOWS,
    "transcript_events": frozenset({"session_id", "seq", "event_json", "event_zstd"}),
    "session_transcript_archives": frozenset({"session_id", "session_key", "encoding", "archive_blob"}),
}


def read(path: Path, scratch: Path, agent: str) -> list[Item | Record | BadRow]:
    """Every response, call and session; of a row that cannot be read, that.

    Raises UnreadableError, UnknownLayoutError, CorruptError, FileNotFoundError.
    """
    return sqlite.read(path, scratch, ALLOWED, lambda connection: list(_found(connection, agent)))


def present_sessions(path: Path, scratch: Path) -> dict[str, str]:
    """The present session of each key; of a key that is gone the one that was archived. Raises as `read` does."""

    def found(connection: sqlite3.Connection) -> dict[str, str]:
        known, archived = sessions.Known(""), {}
        if sqlite.has_table(connection, "session_transcript_archives"):
            names = sqlite.columns(connection, "session_transcript_archives", ALLOWED, frozenset({"session_id"}))
            if "session_key" in names:
                archived = dict(connection.execute("SELECT session_key, session_id FROM session_transcript_archives"))
        if sqlite.has_table(connection, "session_nodes"):
            required = frozenset({"session_key", "current_session_id"})
            known.nodes(sqlite.rows(connection, "session_nodes", ALLOWED, required))
        return archived | known.present

    return sqlite.read(path, scratch, ALLOWED, found)


def unpacked(data: bytes) -> bytes:
    """The text of a transcript that was packed with zstd. Raises CorruptError."""
    try:
        with pa.input_stream(pa.BufferReader(data), compression="zstd") as stream:
            text: bytes = stream.read(MAX_UNPACKED + 1)
    except (OSError, pa.ArrowException) as error:
        raise CorruptError(type(error).__name__) from None
    if len(text) > MAX_UNPACKED:
        raise CorruptError("too large")
    return text


def transcript(text: bytes, context: transcripts.Context) -> Iterator[Record | BadRow]:
    """The records of a whole transcript that does not grow any more."""
    context.head = partial(transcripts.head, _object(text.partition(b"\n")[0]))
    for line in io.BytesIO(text):
        if line.strip():
            yield from _entry(line, context)


def _entry(data: bytes, context: transcripts.Context) -> Iterator[Record | BadRow]:
    """The records of one entry, or that it cannot be read."""
    if not transcripts.may_matter(data):
        return
    entries = lines.parse(data, transcripts.is_event).records
    if not entries:
        yield BadRow(lines.fault(data))
    for _, found in entries:
        yield from transcripts.read(found, context)


def _found(connection: sqlite3.Connection, agent: str) -> Iterator[Item | Record | BadRow]:
    known = sessions.Known(agent)
    if sqlite.has_table(connection, "session_nodes"):
        required = frozenset({"session_key", "current_session_id"})
        known.nodes(sqlite.rows(connection, "session_nodes", ALLOWED, required))
    if sqlite.has_table(connection, "session_windows"):
        required = frozenset({"session_id", "session_key"})
        known.windows(sqlite.rows(connection, "session_windows", ALLOWED, required))
    yield from known.items()
    known.heads |= _heads(connection)
    contexts: dict[str, transcripts.Context] = {}
    required = frozenset({"session_id", "seq", "event_json"})
    for row in sqlite.rows(connection, "transcript_events", ALLOWED, required, "ORDER BY session_id, seq"):
        session_id = str(row["session_id"])
        if session_id not in contexts:
            contexts[session_id] = known.context(session_id)
        try:
            data = _event(row)
        except CorruptError:
            yield BadRow("bad_type")
            continue
        if data is not None:
            yield from _entry(data, contexts[session_id])
    if sqlite.has_table(connection, "session_transcript_archives"):
        required = frozenset({"session_id", "encoding", "archive_blob"})
        for row in sqlite.rows(connection, "session_transcript_archives", ALLOWED, required):
            yield from _archive(row, known)


def _heads(connection: sqlite3.Connection) -> dict[str, Callable[[], transcripts.Head]]:
    """What the first lines of the transcripts say."""
    names = ", ".join(
        name
        for name in sqlite.columns(connection, "transcript_events", ALLOWED, frozenset({"session_id", "event_json"}))
        if name in ("event_json", "event_zstd")
    )
    found: dict[str, Callable[[], transcripts.Head]] = {}
    for session_id, *values in connection.execute(f"SELECT session_id, {names} FROM transcript_events WHERE seq <= 1"):
        try:
            data = _event(dict(zip(names.split(", "), values, strict=True)))
        except CorruptError:
            continue  # told where the row is read
        head = partial(transcripts.head, _object(data) if data else None)
        if head() != transcripts.Head():
            found[str(session_id)] = head
    return found


def _event(row: sqlite.Values) -> bytes | None:
    text, packed = row.get("event_json"), row.get("event_zstd")
    if isinstance(text, str):
        return text.encode("utf-8", "surrogatepass")
    return unpacked(packed) if isinstance(packed, bytes) else None


def _archive(row: sqlite.Values, known: sessions.Known) -> Iterable[Record | BadRow]:
    blob = row["archive_blob"]
    if not isinstance(blob, bytes):
        return ()
    try:
        text = unpacked(blob) if row["encoding"] == "zstd" else blob
    except CorruptError:
        return (BadRow("bad_type"),)
    key = row["session_key"]
    return transcript(text, known.context(str(row["session_id"]), key=str(key) if key else None))


def _object(data: bytes) -> Json | None:
    found = lines.parse(data, transcripts.is_event).records
    return found[0][1] if found else None
