"""`apiary backup` and `apiary restore`.

Does not belong here: what is in a backup (warehouse/backup.py).
"""

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipelines import engine
from pipelines.commands.loading import alone
from pipelines.commands.terminal import Shared, Stop, note, say, store_of
from pipelines.contract.numbers import pluralize
from pipelines.engine import Engine
from pipelines.home import Home


def _backup(options: argparse.Namespace) -> int:
    from pipelines.warehouse import backup

    engine.require(Engine.DUCKDB)
    home, store_url = Home.from_environment(), store_of(options)
    with alone(home):
        made = backup.make(home, options.to.expanduser().absolute(), now=datetime.now(UTC).replace(microsecond=0))
    say(f"{made.file}: {pluralize(made.files, 'file')}, {pluralize(made.bytes, 'byte')}")
    if not store_url.startswith(home.root.as_uri()):
        note(f"the store {store_url} is not in it: keep it by its own means")
    note("it holds rows of people and the key that signs statements: keep it where only you can read it")
    return 0


def _restore(options: argparse.Namespace) -> int:
    from pipelines.store import open_store
    from pipelines.warehouse import backup

    engine.require(Engine.DUCKDB)
    home, file = Home.from_environment(), options.file.expanduser().absolute()
    if not file.is_file():
        raise Stop(2, f"{file} is no file: name one that `apiary backup` wrote")
    with alone(home):
        found = backup.restore(home, file, open_store(store_of(options)))
    size = f"{pluralize(found.files, 'file')}, {pluralize(found.bytes, 'byte')}"
    say(f"{home.root}: {size}, as of {found.made_at:%Y-%m-%d %H:%M:%S} UTC")
    if found.reopened:
        note(f"finished after it was made: {pluralize(found.reopened, 'erasure')}; `apiary run` repeats them")
    note("`apiary run` loads what arrived since")
    return 0


def add(group: Any, shared: Shared) -> None:
    """The commands under `apiary`."""
    made = shared.add(
        group, "backup", "write the warehouse, books, exports and keys into one file", _backup, shared.store
    )
    made.add_argument("--to", type=Path, required=True, metavar="DIR", help="a folder outside of APIARY_HOME")
    back = shared.add(group, "restore", "put a backup into an APIARY_HOME without a warehouse", _restore, shared.store)
    back.add_argument("file", type=Path, metavar="FILE", help="what `apiary backup` wrote")
