"""The benchmarks: both sides count the same, and only what is more than chance is called worse.

Does not belong here: how fast anything is (make bench).
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from bench.ratios import __main__ as ratios
from bench.ratios import device, home, measure
from bench.ratios.measure import Found, WrongSumsError, add_pairs


@pytest.mark.parametrize("benchmark", ratios.WHOLE, ids=lambda benchmark: benchmark.name)
def test_a_benchmark_has_two_sides_a_ratio_to_compare_with_and_a_limit(benchmark: measure.Benchmark) -> None:
    for side in (benchmark.ours, benchmark.floor):
        module, _, function = side.partition(":")
        assert callable(getattr(importlib.import_module(module), function)), side
    committed = json.loads(ratios.COMMITTED.read_text("utf-8"))
    if benchmark in ratios.QUICK:
        assert committed["whole"][benchmark.name]["ratio"] > 0
        assert committed["quick"][benchmark.name]["ratio"] > 0
        assert committed["test"][benchmark.name]["ratio"] > 0
    assert ratios.LIMITS[benchmark.name]


@pytest.mark.services
def test_no_ratio_is_worse_than_the_committed_one(capsys: pytest.CaptureFixture[str]) -> None:
    """`make bench-quick` on the least data. A change that is meant to cost something writes new ratios:
    `python -m bench.ratios --test --write`, `--quick --write`."""
    assert ratios.main(["--test"]) == 0, capsys.readouterr().out


def test_the_device_and_its_floor_find_what_was_written(tmp_path: Path) -> None:
    sums = home.write(tmp_path / "hive", megabytes=0.3, turns_per_session=7)
    device.enrol(tmp_path)
    assert sums.steps, "both kinds of sessions"
    assert device.ship_backlog(tmp_path) == sums.told()
    assert device.read_backlog(tmp_path) == sums.told()
    assert device.read_json(tmp_path) == sums.told()


@pytest.mark.parametrize(
    ("ours", "floor", "is_worse"),
    [
        ([10.0, 10.0], [2.0, 2.0], False),
        ([12.4, 12.4], [2.0, 2.0], False),
        ([12.6, 12.6], [2.0, 2.0], True),
        ([12.6, 14.0], [2.0, 2.0], False),  # the pairs differ by more than that
        ([12.6, 10.0], [2.0, 2.0], False),  # the least counts
        ([20.0, 10.0], [2.0, 1.0], True),
    ],
)
def test_a_ratio_is_worse_beyond_a_quarter_and_the_spread(
    ours: list[float], floor: list[float], is_worse: bool
) -> None:
    assert ratios.is_worse(Found(ours, floor), {"ratio": 5.0, "spread": 0.0}) == is_worse
    assert not ratios.is_worse(Found([6.2], [1.0]), {"ratio": 5.0, "spread": 0.0})


def test_a_side_that_counts_something_else_measures_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "_side", lambda side, folder, *, is_process: (1.0, {"turns": len(side)}))
    benchmark = ratios.QUICK[0]
    with pytest.raises(WrongSumsError, match=benchmark.name):
        add_pairs(benchmark, tmp_path, {"turns": 3}, Found(), 1)
