"""B8: one new day after a short and after a long history, the whole `apiary run`.

Does not belong here: how all models grow (growth.py).
"""

import shutil
from datetime import timedelta
from pathlib import Path

from bench.ratios import growth

SHORT = 10
TURNS_PER_DAY = 30
"""Of each device: a day is about as much as a person does."""


def prepare_histories(folder: Path, days: float) -> dict[str, int]:
    """Two homes, of a few days and of so many, both built; and in each landing one day more."""
    for name, length in (("short", SHORT), ("long", int(days))):
        home = folder / name
        growth.deliver(home, days=length, turns_per_day=TURNS_PER_DAY)
        growth.apiary(home, "run")
        _deliver_next_day(home)
    return {"new_turns": growth.DEVICES * TURNS_PER_DAY}


def _deliver_next_day(place: Path) -> None:
    """The same devices go on."""
    from pipelines.commands.simulate import write_landing
    from pipelines.home import Home
    from pipelines.simulate import scale

    home, day = Home(place), growth.LAST_DAY + timedelta(days=1)
    for device in scale.devices(growth.DEVICES, days=1, turns_per_day=TURNS_PER_DAY, last_day=day, only_hive=True):
        write_landing(Home(home.devices / device.name), device, home.store_url, is_first=False)


def run_after_long(folder: Path) -> dict[str, int]:
    """`apiary run` with one new day after a long history."""
    return _run(folder, "long")


def run_after_short(folder: Path) -> dict[str, int]:
    """The floor: the same after a short one."""
    return _run(folder, "short")


def _run(folder: Path, name: str) -> dict[str, int]:
    home = folder / "copy" / name
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(folder / name, home, symlinks=True)
    warehouse = home / "warehouse" / "apiary.duckdb"
    before = growth.sums(warehouse)["turns"]
    growth.apiary(home, "run")
    return {"new_turns": growth.sums(warehouse)["turns"] - before}
