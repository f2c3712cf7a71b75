"""The daily job killed in every step, however it was launched: from a terminal, the UI, or a schedule.

After each kill the next run must get past the step before, and the last one must be good: nothing stays stuck. The
short form, without processes, is tests/defs/test_orphaned_runs.py. Does not belong here: signals that ask a run to
end (test_killed_runs.py).
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest

from pipelines.home import Home
from pipelines.simulate.homes import HomeSpec, write_home
from tests.end_to_end.driving import apiary, device, send

pytestmark = pytest.mark.long
KILLING = "tests.end_to_end.killing"  # never imported here: it changes Dagster
REPOSITORY = Path(__file__).resolve().parents[2]
STEPS = (
    "books", "erasure__requests", "erasure__receipts", "wire", "arrival_gate", "billing_models", "billing_gate",
    "billing__statements", "billing__statements_exports_complete", "analytics_models", "departure_gate",
    "published__marts", "quota__snapshots",
)  # fmt: skip
STEP_SECONDS = 900.0  # until a run has come to a step, also on a machine that is busy with other things
LAUNCH = """
mutation ($day: String!) { launchRun(executionParams: {
  selector: {jobName: "daily", repositoryName: "__repository__", repositoryLocationName: "tests.end_to_end.killing"},
  runConfigData: "{}",
  executionMetadata: {tags: [{key: "dagster/asset_partition_range_start", value: $day},
                             {key: "dagster/asset_partition_range_end", value: $day}]}
}) { __typename ... on PythonError { message } ... on LaunchRunSuccess { run { runId } } } }
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A warehouse with a day of one agent in its store."""
    spec = HomeSpec(layout="v2", seed=1, timezone="UTC", first_day=date(2026, 3, 1), days=1, queens_per_day=1)
    write_home(tmp_path / "hive", spec)
    made = device(tmp_path / "home", store=(tmp_path / "store").as_uri())
    send(made, tmp_path / "hive")
    return made


def environment(home: Home) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("APIARY_", "DAGSTER_", "HIVE_"))}
    store = (home.root.parent / "store").as_uri()
    return kept | {"APIARY_HOME": str(home.root), "APIARY_STORE": store, "PYTHONUNBUFFERED": "1"}


def runs(home: Home) -> list[dg.DagsterRun]:
    """All runs of the daily job, the first one first."""
    with dg.DagsterInstance.from_config(str(home.dagster)) as instance:
        return [run for run in reversed(instance.get_runs()) if run.job_name == "daily"]


def good(home: Home) -> None:
    """Wait for a run that ends well, and look whether any is stuck."""
    end = time.monotonic() + 2 * STEP_SECONDS
    while "SUCCESS" not in [run.status.value for run in runs(home)]:
        assert time.monotonic() < end, [run.status.value for run in runs(home)]
        time.sleep(1)
    found = [run.status.value for run in runs(home)]
    before = found[: found.index("SUCCESS")]  # also one that the daemon had made, and not started, when the power went
    assert set(before) == {"FAILURE"}, "each killed run is ended, and none is stuck"
    assert len(before) >= len(STEPS)


class Order:
    """Which step the next run that comes to it dies in."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def give(self, step: str) -> None:
        """For the next run."""
        self.path.write_text(step, "utf-8")

    def wait(self, home: Home) -> None:
        """Until a run has taken it."""
        end = time.monotonic() + STEP_SECONDS
        while self.path.exists():
            assert time.monotonic() < end, (self.path.read_text("utf-8"), [(r.run_id, r.status) for r in runs(home)])
            time.sleep(0.2)


@pytest.fixture
def order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Order:
    monkeypatch.setenv("KILL_AT", str(tmp_path / "kill_at"))
    return Order(tmp_path / "kill_at")


def test_a_run_from_a_terminal(home: Home, tmp_path: Path, order: Order) -> None:
    for step in STEPS:
        order.give(step)
        with (tmp_path / f"{step}.log").open("wb") as log:
            command = [sys.executable, "-m", KILLING, "run"]
            process = subprocess.run(
                command,
                env=environment(home),
                cwd=REPOSITORY,
                stdout=log,
                stderr=log,
                timeout=STEP_SECONDS,
                check=False,
            )
        assert process.returncode == -signal.SIGKILL, (tmp_path / f"{step}.log").read_text("utf-8")
    apiary(home.root, "run", "--store", (tmp_path / "store").as_uri())
    good(home)


class Daemon:
    """`dagster dev` as `apiary dev` starts it."""

    def __init__(self, home: Home, log: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        from pipelines.defs.foreground import INSTANCE

        home.dagster.mkdir(exist_ok=True, parents=True)
        (home.dagster / "dagster.yaml").write_text(INSTANCE, "utf-8")
        program = [str(Path(sys.executable).with_name("dagster")), "dev", "-h", "127.0.0.1", "-p", str(self.port)]
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [*program, "-m", KILLING], stdout=file, stderr=file, start_new_session=True, cwd=REPOSITORY,
                env=environment(home) | {"DAGSTER_HOME": str(home.dagster)},
            )  # fmt: skip

    def power_loss(self) -> None:
        """Everything at once is gone: the server, the daemon, the code server, the run, its dbt."""
        family = psutil.Process(self.process.pid).children(recursive=True)
        for process in [psutil.Process(self.process.pid), *family]:
            with suppress(psutil.Error):
                process.kill()
        self.process.wait()

    def launch(self) -> None:
        """What the button of the UI asks for."""
        body = json.dumps({"query": LAUNCH, "variables": {"day": f"{datetime.now(UTC):%Y-%m-%d}"}}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/graphql", body, {"Content-Type": "application/json"}
        )
        end = time.monotonic() + 300
        while True:
            try:  # once it listens it is asked once: a run is written down before the answer, however long that takes
                with urllib.request.urlopen(request, timeout=STEP_SECONDS) as answer:
                    told: dict[str, Any] = json.load(answer)
            except TimeoutError:
                raise
            except OSError:
                assert time.monotonic() < end, "the server never answered"
                time.sleep(1)
                continue
            assert told["data"]["launchRun"]["__typename"] == "LaunchRunSuccess", told
            return


@contextmanager
def daemon(home: Home, log: Path) -> Iterator[Callable[[], Daemon]]:
    """Starts a daemon, and another after a loss of power; ends the last one."""
    running: list[Daemon] = []

    def start() -> Daemon:
        running.append(Daemon(home, log))
        return running[-1]

    try:
        yield start
    finally:
        if running and running[-1].process.poll() is None:
            running[-1].power_loss()


@pytest.mark.parametrize("launched_by", ["ui", "schedule"])
def test_a_run_of_the_daemon(
    home: Home, tmp_path: Path, order: Order, launched_by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed alone by the system; in the load with everything that runs, as by a loss of power."""
    if launched_by == "schedule":
        monkeypatch.setenv("KILL_EVERY_MINUTE", "yes")
    order.give(STEPS[0])
    with daemon(home, tmp_path / "daemon.log") as start:
        running = start()
        for step in STEPS:
            order.give(step)
            if launched_by == "ui":
                running.launch()
            order.wait(home)
            if step == "wire":
                running.power_loss()
                running = start()
        if launched_by == "ui":
            running.launch()
        good(home)
