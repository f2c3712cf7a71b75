"""The schema of the device's state (`state.db`) and the migrations that lead to it from every earlier version.

`PRAGMA user_version` counts the migrations that were applied. Each is one transaction together with its number, so a
migration that was killed leaves the version before it and is applied again. A state of a release that had no versions
says 0. A new state takes the same way: there is no second schema to keep equal.

To change the state append a function to MIGRATIONS; never change one that was released. It runs inside a transaction:
`execute` only, as `executescript` would commit. Does not belong here: reading or writing rows (state.py).
"""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing

from pipelines.device import usage
from pipelines.device.blocks import pack
from pipelines.device.errors import DeviceError

Migration = Callable[[sqlite3.Connection], None]
BLOCK_ROWS = 1_000

FIRST_SCHEMA = """
CREATE TABLE IF NOT EXISTS device (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS consent (
    consent_id TEXT NOT NULL, state TEXT NOT NULL, at TEXT NOT NULL, history TEXT, contract_hash TEXT);
CREATE TABLE IF NOT EXISTS outbox (seq INTEGER PRIMARY KEY, key TEXT NOT NULL, body BLOB NOT NULL, sent_at TEXT);
CREATE TABLE IF NOT EXISTS consent_scope (
    consent_id TEXT PRIMARY KEY, homes TEXT, sources TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS confirmation (seq INTEGER PRIMARY KEY, receipt BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS baseline (source TEXT PRIMARY KEY, size INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS history (record_id BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS source (
    source TEXT PRIMARY KEY, device INTEGER, inode INTEGER, generation INTEGER, size INTEGER, modified_ns INTEGER,
    offset INTEGER, line INTEGER, head_length INTEGER, head_hash TEXT, tail_length INTEGER, tail_hash TEXT,
    given_up INTEGER
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS unread (
    source TEXT PRIMARY KEY, home TEXT NOT NULL, kind TEXT NOT NULL, device INTEGER NOT NULL, inode INTEGER NOT NULL,
    size INTEGER NOT NULL, bytes INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS snapshot (item TEXT PRIMARY KEY, signature TEXT NOT NULL, observation INTEGER NOT NULL)
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS seen (record_id BLOB PRIMARY KEY, owner TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS session (session_id TEXT PRIMARY KEY, user_id TEXT NOT NULL, is_live INTEGER NOT NULL)
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS staged (
    record_id TEXT NOT NULL, table_name TEXT NOT NULL, row TEXT NOT NULL, seq INTEGER NOT NULL,
    PRIMARY KEY (seq, record_id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS batch (
    seq INTEGER PRIMARY KEY, state TEXT NOT NULL, cut_at TEXT NOT NULL, manifest_key TEXT, manifest_sha256 TEXT,
    objects TEXT, rows INTEGER, bytes INTEGER, delivered_at TEXT, detail TEXT);
CREATE TABLE IF NOT EXISTS counter (
    seq INTEGER NOT NULL, name TEXT NOT NULL, value INTEGER NOT NULL, PRIMARY KEY (seq, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS trouble (
    store TEXT PRIMARY KEY, seq INTEGER NOT NULL, next_at TEXT NOT NULL, since TEXT NOT NULL, tries INTEGER NOT NULL,
    failures INTEGER NOT NULL, is_refused INTEGER NOT NULL, stored TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS run (run INTEGER PRIMARY KEY, started_at TEXT NOT NULL, is_reported INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS run_source (
    run INTEGER NOT NULL, source TEXT NOT NULL, kind TEXT NOT NULL, counts TEXT NOT NULL, PRIMARY KEY (run, source)
) WITHOUT ROWID;
"""


def migrate(db: sqlite3.Connection) -> None:
    """Apply the migrations that a state lacks. Raises DeviceError if a newer program wrote it, sqlite3.Error."""
    while (version := version_of(db)) < len(MIGRATIONS):
        db.execute("BEGIN IMMEDIATE")
        try:
            if version_of(db) == version:  # else another process was first
                MIGRATIONS[version](db)
                db.execute(f"PRAGMA user_version = {version + 1}")
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
    if version > len(MIGRATIONS):
        raise DeviceError(
            f"the state of this device was written by a newer Apiary (state version {version}, this program knows"
            f" {len(MIGRATIONS)}): install the newer version again; nothing was read or sent"
        )


def version_of(db: sqlite3.Connection) -> int:
    """How many migrations were applied to a state."""
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def columns(db: sqlite3.Connection) -> dict[str, list[str]]:
    """The columns of each table, in their order."""
    found: dict[str, list[str]] = {}
    for table, column in db.execute(
        "SELECT tables.name, columns.name FROM sqlite_schema AS tables, pragma_table_info(tables.name) AS columns"
        " WHERE tables.type = 'table' ORDER BY tables.name, columns.cid"
    ):
        found.setdefault(table, []).append(column)
    return found


def _begin(db: sqlite3.Connection) -> None:
    """Every shape a state had before there were versions: tables and columns were added, none was taken away."""
    for statement in FIRST_SCHEMA.split(";"):
        db.execute(statement)
    with closing(sqlite3.connect(":memory:")) as first:
        first.executescript(FIRST_SCHEMA)
        wanted = columns(first)
        statements = dict(first.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'table'").fetchall())
    present = columns(db)
    for table, names in wanted.items():
        if not set(names) <= set(present[table]):
            _rebuild(db, table, statements[table], [name for name in names if name in present[table]])
    usage.install(db)


def _rebuild(db: sqlite3.Connection, table: str, statement: str, kept: list[str]) -> None:
    """Make a table anew with all its columns in their order; those it lacked are NULL. Raises DeviceError."""
    db.execute(f"ALTER TABLE {table} RENAME TO old_{table}")
    db.execute(statement)
    names = ", ".join(kept)
    order = "" if "WITHOUT ROWID" in statement else " ORDER BY rowid"  # the order of the consent book is its meaning
    try:
        db.execute(f"INSERT INTO {table} ({names}) SELECT {names} FROM old_{table}{order}")
    except sqlite3.IntegrityError as error:
        raise DeviceError(
            f"the state of this device is of no version of Apiary ({error}): move state.db away and grant consent again"
        ) from error
    db.execute(f"DROP TABLE old_{table}")


def _add_observed(db: sqlite3.Connection) -> None:
    """What is known so far of records that stand on several lines or in several copies (decision 0063)."""
    db.execute("CREATE TABLE IF NOT EXISTS observed (record_id BLOB PRIMARY KEY, parts TEXT NOT NULL) WITHOUT ROWID")


def _tell_turns_apart(db: sqlite3.Connection) -> None:
    """Turns whose natural keys are equal but for a name are numbered, and `seen` remembers whose the first number is.

    Until then the second of two such turns was taken for a copy. Logs are read once more, so that it is counted now;
    what was sent is recognised by its identity.
    """
    db.execute("ALTER TABLE seen ADD COLUMN variant BLOB")
    db.execute(
        "CREATE TABLE variant (record_id BLOB NOT NULL, variant BLOB NOT NULL, ordinal INTEGER NOT NULL,"
        " PRIMARY KEY (record_id, variant), UNIQUE (record_id, ordinal)) WITHOUT ROWID"
    )
    db.execute("DELETE FROM source")


def _tell_retries_apart(db: sqlite3.Connection) -> None:
    """What tells turns of one natural key apart holds their tokens too, not only the names in them (decision 0082).

    The numbers that turns have are given again in the order of their logs, which are read once more: what was sent is
    recognised by its identity, and what was taken for a copy is counted now.
    """
    db.execute("UPDATE seen SET variant = NULL")
    db.execute("DELETE FROM variant")
    db.execute("DELETE FROM source")


def _stage_in_blocks(db: sqlite3.Connection) -> None:
    """Staged rows were a JSON document each; they are kept in columns, many together (decision 0090).

    Every row that waits may be corrected still. `waiting` says in which block it is.
    """
    db.execute("ALTER TABLE staged RENAME TO old_staged")
    db.execute(
        "CREATE TABLE staged (block INTEGER PRIMARY KEY, seq INTEGER NOT NULL, table_name TEXT NOT NULL,"
        " rows INTEGER NOT NULL, data BLOB NOT NULL)"
    )
    db.execute("CREATE TABLE waiting (record_id BLOB PRIMARY KEY, block INTEGER NOT NULL) WITHOUT ROWID")
    for seq, name in db.execute("SELECT DISTINCT seq, table_name FROM old_staged ORDER BY 1, 2").fetchall():
        found = db.execute(
            "SELECT row FROM old_staged WHERE seq = ? AND table_name = ? ORDER BY record_id", (seq, name)
        )
        while some := found.fetchmany(BLOCK_ROWS):
            rows = [json.loads(row) for (row,) in some]
            block = db.execute(
                "INSERT INTO staged (seq, table_name, rows, data) VALUES (?, ?, ?, ?)",
                (seq, name, len(rows), pack(name, rows)),
            ).lastrowid
            if seq == usage.WAITING:
                ids = [(bytes.fromhex(row["record_id"]), block) for row in rows]
                db.executemany("INSERT INTO waiting VALUES (?, ?)", ids)
    db.execute("DROP TABLE old_staged")


def _remember_unchanged(db: sqlite3.Connection) -> None:
    """Of each home a digest of the files of each session for which there was nothing to do (decision 0074)."""
    db.execute("CREATE TABLE unchanged (home TEXT PRIMARY KEY, digests BLOB NOT NULL)")


MIGRATIONS: tuple[Migration, ...] = (
    _begin, _add_observed, _tell_turns_apart, _tell_retries_apart, _stage_in_blocks, _remember_unchanged,
)  # fmt: skip
NEWEST = len(MIGRATIONS)
