"""Devices, a store and a warehouse to drive from tests: in this process where speed matters, as programs where not.

Does not belong here: what should come out (test_*.py).
"""

import os
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipelines.device import enrolment, grant, ship
from pipelines.home import Home

PROGRAM = [sys.executable, "-m", "pipelines.cli"]


def device(
    root: Path, *, store: str, tenant: str = "acme", user: str = "ada", zone: str = "UTC", key: Path | None = None
) -> Home:
    """An enrolled device with consent for its whole history."""
    home = Home(root)
    enrolment.enroll(
        home, tenant=tenant, user=user, region="eu", timezone=zone, store=store, tenant_key=key, now=datetime.now(UTC)
    )
    grant.grant(home, [], history="include")
    return home


def send(home: Home, agents: Path) -> ship.Shipped:
    """Ship what is new."""
    return ship.ship(home, [agents])


def apiary(
    home: Path, *arguments: object, check: bool = True, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the program as a person would, with its own APIARY_HOME."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("APIARY_", "DAGSTER_", "HIVE_"))}
    result = subprocess.run(
        [*PROGRAM, *map(str, arguments)], env=clean | {"APIARY_HOME": str(home)} | (environment or {}),
        capture_output=True, text=True, check=False, timeout=3_000,
    )  # fmt: skip
    if check and result.returncode:
        raise AssertionError(f"apiary {arguments}: exit {result.returncode}\n{result.stdout}\n{result.stderr}")
    return result


def unpack(archive: Path, destination: Path) -> Path:
    """Unpack a sample home; the home's folder."""
    with tarfile.open(archive) as tar:
        tar.extractall(destination, filter="data")
    return next(destination.glob(".hive"))


def by(rows: Sequence[dict[str, Any]], *names: str) -> dict[Any, dict[str, Any]]:
    """Rows by the values of some columns."""
    return {tuple(row[name] for name in names) if len(names) > 1 else row[names[0]]: row for row in rows}
