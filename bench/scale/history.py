"""A fleet with a history, made by the program's own commands: a closed month, an erasure, late and doubled batches.

Devices of the demo, with forks and other runtimes, and so many turns more that are written into the landing. After the
first job October is closed and a user is erased. Then a device delivers late what it did in October, another one has
lost its state and delivers again all that it had delivered, and the job runs once more.
Does not belong here: other engines (`<engine>_build.py`), comparing (compare.py).
"""

import json
import math
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb

from bench.scale import devices, inputs
from pipelines.commands.demo import sign_books
from pipelines.home import Home
from pipelines.simulate import fleet

MONTHS = ("2026-10", "2026-11")
"""What is billed: a month that is closed, and the one that gets its corrections."""
LAST_DAY, DAYS = date(2026, 10, 31), 4
SIGNED = ("--actor", "ada", "--reason", "month end")
WAIVED = ("--waive", "arrivals=the fleet is simulated", "--waive", "grace=the fleet is simulated")
LATE, TWICE = "greta-laptop", "ravi-laptop"
ERASED = ("quarry-and-sons", "user-00002")
"""One of the devices that are written into the landing; her account has a closed month."""
BULK_DEVICES, BULK_DAYS = 7, 28
STEPS = "steps.json"


@dataclass(frozen=True)
class History:
    """The home; its warehouse as it was before the late batches; what the models read at the end, and rows of it."""

    home: Home
    before: Path
    inputs: Path
    rows: dict[str, int]
    seconds: dict[str, float]
    """Wall seconds of what DuckDB did, by step."""


class Steps:
    """What was done at a home and how long it took, in `STEPS` there: a home is gone on with after its last step."""

    def __init__(self, home: Home) -> None:
        self.path = home.root / STEPS
        self.seconds: dict[str, float] = json.loads(self.path.read_text("utf-8")) if self.path.exists() else {}

    def take(self, name: str, work: Callable[[], object]) -> None:
        """Do it, unless it was done."""
        if name in self.seconds:
            return
        begun = time.monotonic()
        work()
        self.seconds[name] = time.monotonic() - begun
        self.path.write_text(json.dumps(self.seconds, indent=2), "utf-8")
        print(f"{datetime.now(UTC):%H:%M} {name}: {self.seconds[name]:.0f} s", file=sys.stderr, flush=True)


TIMED = ("first job", "closing of a month", "erasure", "job with what came late and twice")
"""The steps that the report names: what the warehouse did."""


def make(home: Home, turns: int) -> History:
    """The fleet and its history. Raises SystemExit if a command fails, or if a step did not do what it is for."""
    specs = fleet.demo_fleet(last_day=LAST_DAY, days=DAYS)
    (twice,) = (spec for spec in specs if spec.name == TWICE)
    (late,) = (spec for spec in specs if spec.name == LATE)
    per_day = math.ceil(turns / ((BULK_DEVICES - 1) * BULK_DAYS))  # one of them is erased
    bulk = (
        "simulate", "--landing", "--devices", str(BULK_DEVICES), "--days", str(BULK_DAYS),
        "--turns-per-day", str(per_day), "--last-day", str(LAST_DAY),
    )  # fmt: skip
    before = home.root / "before.duckdb"
    steps = Steps(home)
    steps.take("books", lambda: sign_books(home, specs, now=datetime.now(UTC)))
    steps.take("devices", lambda: devices.ship(home, [spec for spec in specs if spec is not late]))
    steps.take("delivery", lambda: apiary(home, *bulk))
    steps.take("first job", lambda: apiary(home, "run"))
    steps.take("start of closing", lambda: start_closing(home))
    steps.take("closing of a month", lambda: close(home))
    steps.take("erasure", lambda: apiary(home, "erase", "--tenant", ERASED[0], "--user", ERASED[1], "--yes"))
    steps.take("copy of the warehouse", lambda: shutil.copy(home.warehouse, before))
    steps.take("batches that come twice", lambda: devices.ship_again(home, twice))
    steps.take("batches that come late", lambda: devices.ship(home, [late]))
    steps.take("job with what came late and twice", lambda: apiary(home, "run"))
    shutil.rmtree(home.root / "inputs", ignore_errors=True)
    rows = inputs.export(home.warehouse, home.root / "inputs")
    check(home.warehouse, rows, turns)
    return History(home, before, home.root / "inputs", rows, {name: steps.seconds[name] for name in TIMED})


def start_closing(home: Home) -> None:
    """The first of the two steps of a month's end: late usage is waited for."""
    apiary(home, "period", "close", MONTHS[0], "--as-of", "2026-11-03T09:00:00Z", *SIGNED)


def close(home: Home) -> None:
    """The second step. Raises SystemExit if October is not closed."""
    as_of = "2026-11-20T09:00:00Z"
    told = apiary(home, "period", "status", MONTHS[0], "--as-of", as_of)
    totals = re.search(r"--sign (\w+)", told)
    if totals is None:
        raise SystemExit(f"October cannot be closed:\n{told}")
    said = apiary(home, "period", "close", MONTHS[0], "--as-of", as_of, *SIGNED, "--sign", totals[1], *WAIVED)
    if f"{MONTHS[0]} is closed" not in said:
        raise SystemExit(f"October is not closed:\n{said}")


def check(warehouse: Path, rows: dict[str, int], turns: int) -> None:
    """Whether the history is in the warehouse. Raises SystemExit."""
    found = {
        "turns": (rows["wire.llm_turns"] + rows["wire.node_steps"], turns),
        "sums kept of the erased": (count(warehouse, "marts.agg_erased_usage_daily"), 1),
        "corrections of the closed month": (count(warehouse, "marts.fct_adjustments"), 1),
        "batches with duplicates": (count(warehouse, "wire.batches WHERE rows_duplicate > 0"), 1),
    }
    missing = [f"{name}: {has:,}, at least {least:,} are wanted" for name, (has, least) in found.items() if has < least]
    if missing:
        raise SystemExit("; ".join(missing))


def count(warehouse: Path, table: str) -> int:
    """Rows of a table, or of some of it. Raises duckdb.Error."""
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        (number,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone() or (0,)
    return int(number)


def apiary(home: Home, *arguments: str) -> str:
    """A command at the home, as a person would give it; what it printed. Raises SystemExit if it fails."""
    settings = {name: value for name, value in os.environ.items() if not name.startswith("APIARY_")}
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *arguments], env=settings | {"APIARY_HOME": str(home.root)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"apiary {' '.join(arguments)}: {done.stderr[-2000:]}")
    return done.stdout
