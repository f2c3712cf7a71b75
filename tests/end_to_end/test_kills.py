"""Programs killed at random points and started again: the marts are the same as if nothing had happened."""

import os
import random
import signal
import subprocess
import time
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from pipelines.home import Home
from pipelines.simulate.homes import HomeSpec, Truth, write_home
from pipelines.warehouse import usage
from tests.end_to_end.driving import PROGRAM, apiary, device

FULL = {"ship": 40, "run": 10}


def started(home: Path, *arguments: object) -> subprocess.Popen[bytes]:
    """The program in a process group of its own, so that a kill takes what it started with it, or not."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("APIARY_", "DAGSTER_", "HIVE_"))}
    return subprocess.Popen(
        [*PROGRAM, *map(str, arguments)], env=clean | {"APIARY_HOME": str(home)}, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def kill_after(process: subprocess.Popen[bytes], seconds: float, *, whole_group: bool) -> bool:
    """Kill with no warning; whether the process was still alive."""
    time.sleep(seconds)
    was_alive = process.poll() is None
    if was_alive:
        if whole_group:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()
    return was_alive


def took(home: Path, *arguments: object) -> float:
    begun = time.monotonic()
    apiary(home, *arguments)
    return time.monotonic() - begun


def counted(home: Path) -> dict[str, Any]:
    rows = usage.usage(Home(home).published, "tenant")
    return rows[0] if rows else {}


def killed_run_of(tmp_path: Path, seed: int, counts: dict[str, int]) -> None:
    rng = random.Random(seed)
    spec = HomeSpec(
        layout="v2", seed=seed, timezone="Europe/Berlin", first_day=date(2026, 3, 28), days=4, queens_per_day=3
    )
    truth: Truth = write_home(tmp_path / "hive", spec)
    store = (tmp_path / "store").as_uri()
    calm, home = tmp_path / "calm", tmp_path / "home"

    device(calm, store=(tmp_path / "calm-store").as_uri(), zone="Europe/Berlin")
    ship = ("device", "ship", "--home", tmp_path / "hive")
    seconds = took(calm, *ship)
    device(home, store=store, zone="Europe/Berlin")
    kills = 0
    # Once everything is sent there is nothing left to interrupt: the growing home gives each attempt something to do.
    lines = {log: log.read_bytes() for log in (tmp_path / "hive").rglob("*.jsonl")}
    for attempt in range(counts["ship"]):
        share = (attempt + 1) / counts["ship"]
        for log, data in lines.items():
            log.write_bytes(data[: int(len(data) * share)])
        kills += kill_after(started(home, *ship), rng.uniform(0.1, 1.0) * seconds, whole_group=True)
    apiary(home, *ship)

    run = ("run", "--store", store)
    seconds = took(calm, "run")
    run_kills = 0
    for attempt in range(counts["run"]):
        moment = rng.uniform(0.2, 0.95) * seconds
        run_kills += kill_after(started(home, *run), moment, whole_group=attempt % 2 == 0)
    apiary(home, *run)

    assert kills >= counts["ship"] // 3, f"seed {seed}: only {kills} of {counts['ship']} attempts were cut off"
    assert run_kills >= counts["run"] // 2, f"seed {seed}: only {run_kills} of {counts['run']} runs were cut off"
    found = counted(home)
    assert found == counted(calm), f"seed {seed}"
    assert found["turns"] == truth.total.turns
    assert found["input_tokens"] == truth.total.input_tokens
    assert found["output_tokens"] == truth.total.output_tokens
    assert found["tool_calls"] == truth.total.tool_calls
    for by in ("model", "day", "session", "agent", "user"):
        ours, theirs = (usage.usage(Home(path).published, by) for path in (home, calm))
        assert sorted(map(_comparable, ours)) == sorted(map(_comparable, theirs)), by


def _comparable(row: dict[str, Any]) -> str:
    """A row without names under a device's own key."""
    return repr({name: "keyed" if str(value).startswith("k1_") else value for name, value in row.items()})


@pytest.mark.long  # `make test` has tests/torture, which kills the same code without starting the whole job each time
@pytest.mark.parametrize("seed", [1])
def test_killed_often_and_started_again(tmp_path: Path, seed: int) -> None:
    killed_run_of(tmp_path, seed=seed, counts=FULL)
