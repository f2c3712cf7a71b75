"""Runs the sides of a benchmark, each in a process of its own, by turns, and compares.

A ratio of processor seconds of one run says something on a busy machine, too; seconds do not, and none is asserted.
Does not belong here: what is measured (device.py, landing.py, job.py), which benchmarks there are (__main__.py).
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Benchmark:
    """One thing that is measured: `module:function` of ours and of its floor, which are given a prepared folder.

    `target`: the highest ratio that is wanted; `allowance`: seconds that ours may take beyond it, for its start-up.
    `size`: what `prepare` is asked for by `make test`, in quick runs and in whole ones. `is_process`: whether start-up
    and imports count, as they do where little is done. `unit`: what the sides cost. `pairs`: how many are measured.
    """

    name: str
    title: str
    floor_title: str
    prepare: Callable[[Path, float], dict[str, int]]
    ours: str
    floor: str
    target: float
    size: tuple[float, float, float]
    is_process: bool = False
    unit: str = "s"
    allowance: float = 0.0
    pairs: int = 2


@dataclass
class Found:
    """What was measured: costs of each side in the order of the pairs, and the sums both found."""

    ours: list[float] = field(default_factory=list)
    floor: list[float] = field(default_factory=list)
    sums: dict[str, int] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """The least that we took to the least that the floor took: what else runs on a machine only adds."""
        return min(self.ours) / min(self.floor)

    @property
    def spread(self) -> float:
        """How far the ratios of the pairs lie apart, as a share of the middle one."""
        ratios = [ours / floor for ours, floor in zip(self.ours, self.floor, strict=True)]
        return (max(ratios) - min(ratios)) / median(ratios)

    def told(self) -> dict[str, Any]:
        """As it is kept in a file."""
        return {
            "ratio": round(self.ratio, 3), "spread": round(self.spread, 3), "pairs": len(self.ours),
            "ours": round(min(self.ours), 3), "floor": round(min(self.floor), 3), "sums": self.sums,
        }  # fmt: skip


class WrongSumsError(Exception):
    """A side did not find what the benchmark holds: what it costs says nothing."""


def add_pairs(benchmark: Benchmark, folder: Path, wanted: dict[str, int], found: Found, pairs: int) -> None:
    """Measure so many pairs more. Raises WrongSumsError."""
    found.sums = wanted
    for number in range(pairs):
        # Neither is always the one that finds the caches of the machine warm.
        sides = (("ours", benchmark.ours), ("floor", benchmark.floor))
        for name, side in sides if number % 2 else reversed(sides):
            cost, sums = _side(side, folder, is_process=benchmark.is_process)
            if sums != wanted:
                raise WrongSumsError(f"{benchmark.name}: {side} found {sums}, there are {wanted}")
            getattr(found, name).append(cost)


def _side(side: str, folder: Path, *, is_process: bool) -> tuple[float, dict[str, int]]:
    module, _, function = side.partition(":")
    command = [sys.executable, "-m", "bench.ratios.child", module, function, str(folder)]
    # As installed: modules are compiled once. An empty setting is none.
    settings = os.environ | {"PYTHONDONTWRITEBYTECODE": ""}
    child = subprocess.Popen(command, cwd=ROOT, env=settings, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    text = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{side} failed")
    told = json.loads(text.splitlines()[-1])
    return usage.ru_utime + usage.ru_stime if is_process else told["cost"], told["sums"]
