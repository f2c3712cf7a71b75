"""B2: a device looks at homes in which nothing is new, with start-up and imports.

Does not belong here: the floor (tree.py), how sides are measured (measure.py).
"""

from pathlib import Path

import pyarrow.parquet as pq

from bench.ratios import home as homes
from bench.ratios.device import enrol
from pipelines.device.ship import ship
from pipelines.home import Home


def prepare_quiet(folder: Path, sessions: float) -> dict[str, int]:
    """A home of quiet sessions that were read before."""
    homes.write_quiet(folder / "hive", int(sessions))
    enrol(folder)
    for _ in range(2):  # what was written within the last tick of the clock is looked at once more
        ship(Home(folder / "apiary"), [folder / "hive"])
    return {"logs": int(sessions)}


def look_again(folder: Path) -> dict[str, int]:
    """A pass that finds nothing new."""
    shipped = ship(Home(folder / "apiary"), [folder / "hive"])
    if shipped.rows != shipped.report_rows:
        raise SystemExit(f"{shipped.rows} rows were new")
    newest = max((folder / "store").rglob("*-device_reports-*.parquet"))
    return {"logs": pq.read_table(newest)["sources"][0].as_py()}
