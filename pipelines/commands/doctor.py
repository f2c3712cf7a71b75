"""`apiary doctor`: what is installed here, where things are, and whether they can be used.

Does not belong here: what a device sent or may send (device_status.py).
"""

import argparse
import os
import sys
from typing import Any

from pipelines import __version__, engine
from pipelines.commands.tables import table
from pipelines.commands.terminal import Shared, store_of
from pipelines.engine import Engine
from pipelines.home import Home


def _doctor(options: argparse.Namespace) -> int:
    from importlib.metadata import PackageNotFoundError, version

    from pipelines.store import open_store

    home, store_url = Home.from_environment(), store_of(options)
    rows: list[list[object]] = [["apiary", __version__, "ok"], ["python", sys.version.split()[0], "ok"]]
    for package in ("pyarrow", "boto3", "duckdb", "dagster", "dbt-duckdb", "great-expectations"):
        try:
            rows.append([package, version(package), "ok"])
        except PackageNotFoundError:
            rows.append([package, "not installed", "device only"])
    existing = next(path for path in (home.root, *home.root.parents) if path.exists())
    rows.append(["APIARY_HOME", home.root, "ok" if os.access(existing, os.W_OK) else "NOT WRITABLE"])
    is_open = home.device.exists() and home.device.stat().st_mode & 0o077
    rows.append(["device folder", home.device, "READABLE BY OTHERS: chmod 700 it" if is_open else "ok"])
    if _is_device_without_consent(home):
        rows.append(["store", store_url, "not asked: this device has no consent"])
    else:
        try:
            next(iter(open_store(store_url).list("landing/")), None)
            rows.append(["store", store_url, "ok"])
        except Exception as error:  # noqa: BLE001 - whatever it is, the doctor says it
            rows.append(["store", store_url, f"NOT REACHABLE: {error}"])
    rows.append(["warehouse", *_warehouse(home)])
    table(["what", "value", "verdict"], rows)
    return 1 if any(str(row[2]).startswith(("NOT", "READABLE")) for row in rows) else 0


def _warehouse(home: Home) -> tuple[object, str]:
    """Where it is, and whether it is there."""
    if engine.selected() is Engine.DUCKDB:
        return home.warehouse, "ok" if home.warehouse.exists() else "none yet: apiary run"
    from pipelines.errors import ExpectedError
    from pipelines.warehouse import database

    place = engine.selected().value
    try:
        with database.connect(home.warehouse):
            return place, "ok"
    except ExpectedError as error:
        return place, f"NOT REACHABLE: {error}"


def _is_device_without_consent(home: Home) -> bool:
    """No store is asked anything for a device before its owner has consented."""
    from pipelines.device import consent, enrolment

    with consent.open_state(home) as state:
        current = consent.current(state) if state else None
    return enrolment.load(home) is not None and (current is None or current.state != "granted")


def add(group: Any, shared: Shared) -> None:
    """The command under `apiary`."""
    shared.add(group, "doctor", "show versions, paths and whether the store answers", _doctor, shared.store)
