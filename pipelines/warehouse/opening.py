"""Makes the warehouse's file one that opens, without a person: a log that will not replay is set aside.

Rows and ledger roll back together to the last checkpoint, and what the ledger does not know any more is loaded again
from the landing. Nothing is deleted. Does not belong here: loading (load.py), making the whole anew (rebuild.py).
"""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from pipelines.warehouse import database

# In a process of its own: a damaged log may end whoever replays it. Opening also writes it into the file, so that the
# next one has nothing to replay.
PROBE = """
import sys
import duckdb
try:
    with duckdb.connect(sys.argv[1]) as connection:
        connection.execute("SELECT count(*) FROM duckdb_tables()").fetchall()
        connection.execute("CHECKPOINT")
except duckdb.Error as error:
    blameless = ("Could not set lock", "used by another process", "No space left")
    sys.exit(3 if any(words in str(error) for words in blameless) else 1)
"""
BLAMELESS = 3  # another process has it open, or the disk is full: the file is as good as it was


def make_openable(warehouse: Path) -> list[Path]:
    """Set aside what keeps the file from being opened; what was set aside. An open or locked file is left alone.

    First the log, then, if that was not it, the file itself: the landing has everything.
    """
    if database.is_ducklake():
        return []
    log = warehouse.with_name(warehouse.name + ".wal")
    aside: list[Path] = []
    if not warehouse.exists():
        return [_set_aside(log)] if log.exists() else []
    while log.exists() or aside:
        if _opens(warehouse):
            break
        if log.exists():
            aside.append(_set_aside(log))
        else:
            aside.append(_set_aside(warehouse))
            break
    return aside


def _opens(warehouse: Path) -> bool:
    found = subprocess.run(
        [sys.executable, "-c", PROBE, str(warehouse)], capture_output=True, check=False, timeout=3_600
    )
    return found.returncode in (0, BLAMELESS)


def _set_aside(path: Path) -> Path:
    aside = path.with_name(f"{path.name}.unreadable-{datetime.now(UTC):%Y%m%dT%H%M%S%f}")
    path.rename(aside)
    return aside
