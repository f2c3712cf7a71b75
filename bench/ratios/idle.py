"""B2: `apiary device ship` where nothing is new, and where one log has one more line: the whole process.

Does not belong here: the floor (tree.py), how sides are measured (measure.py).
"""

import os
import sys
from pathlib import Path


def prepare_quiet(folder: Path, sessions: float) -> dict[str, int]:
    """A home of quiet sessions that were read before."""
    # Here, not above: what the measured process imports is what the command imports.
    from bench.ratios import home as homes
    from bench.ratios.device import enrol
    from pipelines.device import unchanged
    from pipelines.device.ship import ship
    from pipelines.home import Home

    homes.write_quiet(folder / "hive", int(sessions))
    enrol(folder)
    # Not looked for while the pass is measured.
    (folder / "log").write_text(str(min((folder / "hive").rglob("events.jsonl"))), "utf-8")
    unchanged.CLOCK_TICK_NS = 0  # the home was written a moment ago
    for _ in range(3):  # the first reads, the second looks at sessions that are known now, the third finds nothing
        ship(Home(folder / "apiary"), [folder / "hive"])
    return {"logs": int(sessions)}


def look_again(folder: Path) -> dict[str, int]:
    """A pass that finds nothing new."""
    _ship(folder, new_rows=0)
    return _seen(folder)


def read_one_line(folder: Path) -> dict[str, int]:
    """A pass that finds one new line in one log."""
    from bench.ratios import home as homes

    log = Path((folder / "log").read_text("utf-8"))
    with log.open("a", encoding="utf-8") as file:
        file.write(homes.one_turn(log.parent.name, log.stat().st_size) + "\n")
    _ship(folder, new_rows=1)
    return _seen(folder)


def _ship(folder: Path, *, new_rows: int) -> None:
    """`apiary device ship` in this process, as its entry point does it."""
    from pipelines.cli import main

    store = folder / "store"
    before = len(list(store.rglob("*-llm_turns-*.parquet")))
    os.environ["APIARY_HOME"] = str(folder / "apiary")
    sys.argv = ["apiary", "device", "ship", "--home", str(folder / "hive")]
    if main():
        raise SystemExit("apiary device ship failed")
    if len(list(store.rglob("*-llm_turns-*.parquet"))) - before != new_rows:
        raise SystemExit(f"not {new_rows} batches with a new turn")


def _seen(folder: Path) -> dict[str, int]:
    """How many logs the last report tells of."""
    import pyarrow.parquet as pq

    newest = max((folder / "store").rglob("*-device_reports-*.parquet"))
    return {"logs": pq.ParquetFile(newest).read(columns=["sources"])["sources"][0].as_py()}
