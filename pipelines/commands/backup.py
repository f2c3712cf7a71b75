"""`apiary backup` and `apiary restore`.

Does not belong here: what is in a backup (warehouse/backup.py).
"""

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipelines.commands.loading import alone
from pipelines.commands.terminal import Shared, Stop, store_of
from pipelines.home import Home


def _backup(options: argparse.Namespace) -> int:
    from pipelines.warehouse import backup

    home, store_url = Home.from_environment(), store_of(options)
    with alone(home):
        made = backup.make(home, options.to.expanduser().absolute(), now=datetime.now(UTC).replace(microsecond=0))
    print(f"{made.file}: {made.files} files, {made.bytes:,} bytes")
    if not store_url.startswith(home.root.as_uri()):
        sys.stderr.write(f"the store {store_url} is not in it: keep it by its own means\n")
    sys.stderr.write("it holds rows of people and the key that signs statements: keep it where only you can read it\n")
    return 0


def _restore(options: argparse.Namespace) -> int:
    from pipelines.store import open_store
    from pipelines.warehouse import backup

    home, file = Home.from_environment(), options.file.expanduser().absolute()
    if not file.is_file():
        raise Stop(2, f"{file} is no file: name one that `apiary backup` wrote")
    with alone(home):
        found = backup.restore(home, file, open_store(store_of(options)))
    print(f"{home.root}: {found.files} files, {found.bytes:,} bytes, as of {found.made_at:%Y-%m-%d %H:%M:%S} UTC")
    if found.reopened:
        sys.stderr.write(f"{found.reopened} erasures were finished after it was made: `apiary run` repeats them\n")
    sys.stderr.write("`apiary run` loads what arrived since\n")
    return 0


def add(group: Any, shared: Shared) -> None:
    """The commands under `apiary`."""
    made = shared.add(
        group, "backup", "write the warehouse, books, exports and keys into one file", _backup, shared.store
    )
    made.add_argument("--to", type=Path, required=True, metavar="DIR", help="a folder outside of APIARY_HOME")
    back = shared.add(group, "restore", "put a backup into an APIARY_HOME without a warehouse", _restore, shared.store)
    back.add_argument("file", type=Path, metavar="FILE", help="what `apiary backup` wrote")
