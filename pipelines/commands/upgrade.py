"""`apiary upgrade`: bring what an earlier release left in APIARY_HOME up to this one, in place.

Does not belong here: the migrations of the device's state (pipelines/device/migrations.py), which models were built by
another definition (pipelines/warehouse/definitions.py), building them (pipelines/defs/transform.py).
"""

import argparse
import sqlite3
from contextlib import closing
from typing import Any

from pipelines import engine
from pipelines.commands.tables import table
from pipelines.commands.terminal import Shared, say, store_of
from pipelines.engine import Engine
from pipelines.home import Home

CURRENT = "up to date"


def _upgrade(options: argparse.Namespace) -> int:
    home = Home.from_environment()
    state, models = _state(home), _models(home)
    table(["part", "now", "to do"], [["state of this device", *state], ["models of the warehouse", *models]])
    waits = [to_do for _, to_do in (state, models) if to_do not in (CURRENT, "nothing")]
    if options.check:
        return int(bool(waits))
    from pipelines.device import consent

    with consent.open_state(home):
        pass  # opening it applies the migrations that it lacks
    if models[1] not in (CURRENT, "nothing"):
        from pipelines.commands.warehouse import run_job

        run_job(home, store_of(options))
    say("nothing to upgrade" if not waits else "upgraded")
    return 0


def _state(home: Home) -> tuple[str, str]:
    from pipelines.device import migrations

    path = home.device / "state.db"
    if not path.exists():
        return "none", "nothing"
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
        version = migrations.version_of(db)
    newest = len(migrations.MIGRATIONS)
    return f"version {version}", f"migrations {version + 1} to {newest}" if version < newest else CURRENT


def _models(home: Home) -> tuple[str, str]:
    if engine.selected() is Engine.DUCKDB and not home.warehouse.exists():
        return "no warehouse", "nothing"
    from pipelines.defs import dbt_project
    from pipelines.warehouse import definitions

    changed = definitions.changed(home.warehouse, dbt_project.parsed())
    if not changed:
        return "built by this release", CURRENT
    return f"{len(changed)} built by another release", "load, then build all from the start"


def add(group: Any, shared: Shared) -> None:
    """The command under `apiary`."""
    upgrade = shared.add(
        group, "upgrade", "bring what an earlier release left up to this one; `apiary run` does so by itself", _upgrade,
        shared.store,
    )  # fmt: skip
    upgrade.add_argument("--check", action="store_true", help="change nothing; exit 1 if there is something to do")
