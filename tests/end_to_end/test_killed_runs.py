"""A run that is killed, by kill -9 or by a person's signal, leaves nothing that the next run would wait for.

Does not belong here: what the marts hold afterwards (test_kills.py), runs of other processes (tests/defs).
"""

import os
import signal
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import dagster as dg
import pytest

from pipelines.home import Home
from pipelines.simulate.homes import HomeSpec, write_home
from tests.end_to_end.driving import PROGRAM, apiary, device, send

PATIENCE = 180.0


def at_once() -> float:
    """Two seconds of a machine that is not busy with other things."""
    return 2.0 * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


class Run:
    """`apiary run` as a process, with what it says."""

    def __init__(self, home: Path, log: Path) -> None:
        kept = {n: v for n, v in os.environ.items() if not n.startswith(("APIARY_", "DAGSTER_", "HIVE_"))}
        self._log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [*PROGRAM, "run", "--store", (home.parent / "store").as_uri()],
                env=kept | {"APIARY_HOME": str(home), "PYTHONUNBUFFERED": "1"}, stdout=file, stderr=file,
            )  # fmt: skip

    def says(self, text: str) -> None:
        """Wait until it says so."""
        end = time.monotonic() + PATIENCE
        while text not in self._log.read_text("utf-8"):
            assert time.monotonic() < end, f"never said {text!r}: {self._log.read_text('utf-8')}"
            assert self.process.poll() is None, self._log.read_text("utf-8")
            time.sleep(0.05)

    def ends_on(self, number: int) -> int:
        """Send a signal; the exit code, which must come within two seconds."""
        self.process.send_signal(number)
        begun = time.monotonic()
        code = self.process.wait(timeout=10)
        assert time.monotonic() - begun < at_once()
        return code


@pytest.fixture
def home(tmp_path: Path) -> Path:
    spec = HomeSpec(layout="v2", seed=1, timezone="UTC", first_day=date(2026, 3, 1), days=1, queens_per_day=1)
    write_home(tmp_path / "hive", spec)
    send(device(tmp_path / "home", store=(tmp_path / "store").as_uri()), tmp_path / "hive")
    return tmp_path / "home"


# A shell's job in the background ignores SIGINT, and so does what it starts: the tests may be such a job.
INTERRUPTED = """
import signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from pipelines import cli
from pipelines.commands import warehouse
def run(home, store_url, **_):
    with warehouse.alone(home, store_url, "apiary run"):
        print("at work", flush=True)
        time.sleep(60)
warehouse.run_job = run
raise SystemExit(cli.main(["run"]))
"""


def test_a_person_who_stops_a_run_is_told_once(tmp_path: Path) -> None:
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("APIARY_", "DAGSTER_", "HIVE_"))}
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED], env=kept | {"APIARY_HOME": str(tmp_path / "home")},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "at work\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert said.count("what was done stays done") == 1, said
    assert process.returncode == 128 + signal.SIGINT


def statuses(home: Path) -> list[str]:
    with dg.DagsterInstance.from_config(str(Home(home).dagster)) as instance:
        return [run.status.value for run in reversed(instance.get_runs())]


@pytest.mark.long  # `make test` kills runs of a small job: tests/defs/test_orphaned_runs.py
def test_a_killed_run_keeps_nobody_waiting_and_a_signal_ends_one_at_once(home: Path, tmp_path: Path) -> None:
    killed = Run(home, tmp_path / "killed.log")
    killed.says("load what arrived")
    killed.process.kill()
    killed.process.wait()
    assert statuses(home) == ["STARTED"], "the process could not say that it ended"

    second = Run(home, tmp_path / "second.log")
    second.says("take up requests to be erased")
    assert statuses(home) == ["FAILURE", "STARTED"]

    third = Run(home, tmp_path / "third.log")
    third.says(f"of Dagster (process {second.process.pid}, since")
    assert third.ends_on(signal.SIGTERM) == 128 + signal.SIGTERM, "while it waits"
    assert second.process.poll() is None, "it went on meanwhile"
    assert second.ends_on(signal.SIGINT) == 128 + signal.SIGINT, "while it works"
    first, last = statuses(home)
    assert first == "FAILURE"
    assert last in ("CANCELED", "FAILURE"), "it is not taken for running"


@pytest.mark.long  # a whole run
def test_after_kills_in_the_middle_of_steps_the_next_run_is_good(home: Path, tmp_path: Path) -> None:
    for number, step in enumerate(("load what arrived", "gate: arrival", "build and test what is billed")):
        run = Run(home, tmp_path / f"{number}.log")
        run.says(step)
        time.sleep(1.0)
        run.process.kill()
        run.process.wait()
    apiary(home, "run", "--store", (tmp_path / "store").as_uri())
    assert statuses(home) == ["FAILURE", "FAILURE", "FAILURE", "SUCCESS"]
