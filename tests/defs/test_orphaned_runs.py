"""Runs whose process is gone, of every kind; and the one lock that terminal and daemon runs share.

Does not belong here: `apiary run` being killed for real (tests/end_to_end/test_killed_runs.py).
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import psutil
import pytest
import yaml

from pipelines.defs import foreground
from pipelines.defs import orphaned_runs as orphaned_runs_module
from pipelines.defs.orphaned_runs import (
    PID_TAG,
    RUN_PROCESS,
    STARTED_TAG,
    end_orphaned_children,
    fail_orphaned_runs,
    orphaned_runs,
    process_tags,
)
from pipelines.defs.resources import WarehouseResource
from pipelines.home import BusyError, Home
from pipelines.warehouse import lock


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    (tmp_path / "dagster").mkdir()
    with dg.DagsterInstance.local_temp(
        str(tmp_path / "dagster"),
        overrides={"concurrency": {"pools": {"default_limit": 1}}, "telemetry": {"enabled": False}},
    ) as made:
        yield made


@dg.op
def nothing() -> None:
    """Does nothing."""


@dg.job
def idle() -> None:
    """A job of nothing."""
    nothing()


def begun(instance: dg.DagsterInstance, tags: dict[str, str], status: str = "STARTED") -> str:
    """A run that began and holds the writer's slot."""
    run = instance.create_run_for_job(idle, tags=tags)
    instance.handle_new_event(_told(run, dg.DagsterEventType.RUN_START))
    if status == "CANCELING":
        instance.report_run_canceling(run)
    storage = instance.event_log_storage
    storage.initialize_concurrency_limit_to_default("duckdb")
    storage.claim_concurrency_slot("duckdb", run.run_id, "nothing")
    return str(run.run_id)


def _told(run: dg.DagsterRun, kind: dg.DagsterEventType) -> dg.EventLogEntry:
    event = dg.DagsterEvent(event_type_value=kind.value, job_name=run.job_name)
    return dg.EventLogEntry(
        error_info=None, level="debug", user_message="", run_id=run.run_id, timestamp=time.time(), dagster_event=event
    )


def slots(instance: dg.DagsterInstance) -> int:
    return len(instance.event_log_storage.get_concurrency_run_ids())


@pytest.fixture
def dead() -> dict[str, str]:
    """The tags of a process that was there."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        tags = {PID_TAG: str(process.pid), STARTED_TAG: str(int(psutil.Process(process.pid).create_time()))}
        process.kill()
    return tags


def test_a_run_whose_process_is_gone_is_failed_and_its_slot_is_freed(
    instance: dg.DagsterInstance, dead: dict[str, str]
) -> None:
    run_id = begun(instance, dead)
    assert slots(instance) == 1
    assert fail_orphaned_runs(instance) == [run_id]
    assert instance.get_run_by_id(run_id).status is dg.DagsterRunStatus.FAILURE
    assert slots(instance) == 0


def test_another_process_with_the_same_number_is_not_the_run(instance: dg.DagsterInstance) -> None:
    run_id = begun(instance, process_tags() | {STARTED_TAG: "1000000000"})
    assert fail_orphaned_runs(instance) == [run_id]


IN_PROGRESS = ("STARTED", "CANCELING")
LAUNCHED = ({}, {"dagster/schedule_name": "daily_schedule"}, {"dagster/from_ui": "true"})


@pytest.mark.parametrize("status", IN_PROGRESS)
@pytest.mark.parametrize("launched", LAUNCHED, ids=["terminal", "schedule", "ui"])
def test_a_dead_holder_of_every_kind_is_ended(
    instance: dg.DagsterInstance, dead: dict[str, str], launched: dict[str, str], status: str
) -> None:
    """Killed at work and killed while it was being canceled; also before it could say which process it is."""
    named = begun(instance, launched | dead, status)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(orphaned_runs_module, "UNTAGGED_SECONDS", 0)
        nameless = begun(instance, launched, status)
        assert fail_orphaned_runs(instance) == [nameless, named], "the latest first"
    assert {run.status.value for run in instance.get_runs()} == {"FAILURE"}
    assert slots(instance) == 0
    waiting = begun(instance, launched, status)
    assert fail_orphaned_runs(instance) == [], "it is about to name itself"
    assert instance.get_run_by_id(waiting).status.value == status


def test_a_run_that_said_that_it_ended_keeps_its_end(
    instance: dg.DagsterInstance, dead: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = begun(instance, dead)
    ask = orphaned_runs_module._is_alive

    def ends_meanwhile(tags: dict[str, str]) -> bool:
        instance.report_run_canceled(instance.get_run_by_id(run_id))
        return ask(tags)

    monkeypatch.setattr(orphaned_runs_module, "_is_alive", ends_meanwhile)
    assert fail_orphaned_runs(instance) == []
    assert instance.get_run_by_id(run_id).status is dg.DagsterRunStatus.CANCELED


def test_a_run_that_is_at_work_is_left_alone(instance: dg.DagsterInstance) -> None:
    run_id = begun(instance, process_tags())
    assert fail_orphaned_runs(instance) == []
    assert instance.get_run_by_id(run_id).status is dg.DagsterRunStatus.STARTED
    assert slots(instance) == 1


def test_what_a_dead_run_started_is_ended_and_nothing_else(
    dead: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(RUN_PROCESS, raising=False)
    sleeping = [sys.executable, "-c", "print(1, flush=True); input()"]
    owners = (" ".join(dead.values()), " ".join(process_tags().values()), "", "nonsense")
    children = [
        subprocess.Popen(sleeping, env=os.environ | {RUN_PROCESS: owner}, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for owner in owners
    ]
    for child in children:
        assert child.stdout is not None
        child.stdout.readline()
    assert end_orphaned_children() == [children[0].pid]
    assert children[0].wait(5) < 0
    assert [child.poll() for child in children[1:]] == [None] * 3
    for child in children[1:]:
        child.kill()
        child.wait()
    assert os.environ[RUN_PROCESS] == owners[1], "what this process starts bears its name"


def test_the_daemon_looks_by_itself(instance: dg.DagsterInstance, dead: dict[str, str]) -> None:
    begun(instance, dead)
    with dg.build_sensor_context(instance=instance) as context:
        told = orphaned_runs(context)
    assert isinstance(told, dg.SkipReason)
    assert "failed" in str(told.skip_message)
    assert orphaned_runs.default_status is dg.DefaultSensorStatus.RUNNING
    assert slots(instance) == 0


def taking(path: Path) -> str:
    """What another process is told that asks for the lock."""
    script = (
        "import sys; from pathlib import Path; from pipelines.warehouse import lock\n"
        "with lock.hold(Path(sys.argv[1]), 'other'): pass"
    )
    command = [sys.executable, "-c", script, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stderr


def test_a_run_of_dagster_holds_the_lock_from_its_first_step_to_its_last(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    warehouse = tmp_path / "warehouse" / "apiary.duckdb"
    seen: list[str] = []

    @dg.op
    def look(duckdb: WarehouseResource) -> None:
        seen.append(taking(lock.path_of(warehouse)))

    @dg.job(executor_def=dg.in_process_executor, resource_defs={"duckdb": WarehouseResource(database=str(warehouse))})
    def looking() -> None:
        look()

    done = looking.execute_in_process(instance=instance)
    (error,) = seen
    assert "BusyError" in error
    assert f"run {done.run_id[:8]} of Dagster" in error, "it says who"
    run = instance.get_run_by_id(done.run_id)
    assert run is not None
    assert run.tags.items() >= process_tags().items(), "and can be told from an orphan"
    with lock.hold(lock.path_of(warehouse), "somebody"):
        pass


KILLED = """
import sys, time
from pathlib import Path
import dagster as dg
import duckdb as engine
from pipelines.defs import foreground
from pipelines.defs import orphaned_runs as orphaned_runs_module
from pipelines.defs.resources import WarehouseResource
from pipelines.warehouse import lock

warehouse, folder = map(Path, sys.argv[1:])

@dg.op(pool="duckdb")
def work(duckdb: WarehouseResource) -> None:
    print("at work", flush=True)
    engine.sql("SELECT count(*) FROM range(10000000) AS a, range(10000000) AS b WHERE a.range % 7 = b.range % 5").show()

@dg.job(executor_def=dg.in_process_executor, resource_defs={"duckdb": WarehouseResource(database=str(warehouse))})
def daily() -> None:
    work()

with foreground.ending_on_signals(), dg.DagsterInstance.from_config(str(folder)) as instance:
    with lock.hold(lock.path_of(warehouse), "apiary run", waiting=lambda text: print(text, flush=True)):
        daily.execute_in_process(instance=instance)
"""


def started(warehouse: Path, folder: Path) -> "subprocess.Popen[str]":
    """A process whose run is in the middle of a step, in a query that never ends, or that waits for another's."""
    command = [sys.executable, "-c", KILLED, str(warehouse), str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def at_once() -> float:
    """Two seconds of a machine that is not busy with other things."""
    return 2.0 * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def said(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline()


@pytest.mark.long
@pytest.mark.parametrize("granularity", ["op", "run"])
def test_what_a_killed_run_held_is_free_for_the_next_one(
    tmp_path: Path, granularity: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`op` is what a home of an earlier release has: there a step claims a slot that nobody gives back."""
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    pools = {"default_limit": 1, "granularity": granularity}
    settings = {"telemetry": {"enabled": False}, "concurrency": {"pools": pools}}
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(settings), "utf-8")
    warehouse = tmp_path / "warehouse" / "apiary.duckdb"
    killed = started(warehouse, tmp_path)
    assert said(killed) == "at work\n"
    waiting = started(warehouse, tmp_path)
    told = said(waiting)
    assert "in use by apiary run, run " in told
    assert f"(process {killed.pid}, since" in told
    begun = time.monotonic()
    waiting.terminate()
    assert waiting.wait(10) == 128 + signal.SIGTERM
    assert time.monotonic() - begun < at_once(), "while it waits"

    killed.kill()
    killed.wait()
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        (run,) = instance.get_runs()
        assert run.status is dg.DagsterRunStatus.STARTED, "it could not say that it ended"
        assert slots(instance) == (1 if granularity == "op" else 0)

        good = started(warehouse, tmp_path)
        assert said(good) == "at work\n", "it did not wait"
        assert [run.status.value for run in instance.get_runs()] == ["STARTED", "FAILURE"]
        begun = time.monotonic()
        good.send_signal(signal.SIGINT)
        assert good.wait(10) != 0, "the engine may be the first to notice"
        assert time.monotonic() - begun < at_once(), "while the engine is at work"
        fail_orphaned_runs(instance)
        assert instance.get_runs()[0].is_finished
        assert slots(instance) == 0
    assert taking(lock.path_of(warehouse)) == ""


def test_a_lock_says_who_holds_it_and_is_taken_once_by_a_process(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with lock.hold(path, "apiary run"):
        with lock.hold(path, "run 1a2b3c4d of Dagster"):
            assert f"apiary run, run 1a2b3c4d of Dagster (process {os.getpid()}, since 2" in str(lock.holder(path))
            assert BusyError.__name__ in taking(path)
        assert lock.holder(path).name == "apiary run"
    assert lock.holder(path) is None


def test_a_file_of_an_earlier_release_is_replaced_and_one_that_a_person_edited_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "")
    home = Home(tmp_path)
    settings = foreground.make_instance_home(home) / "dagster.yaml"
    assert capsys.readouterr().err == ""
    for earlier in foreground.EARLIER:
        settings.write_text(earlier, "utf-8")
        foreground.make_instance_home(home)
        assert settings.read_text("utf-8") == foreground.INSTANCE
    monkeypatch.setenv(foreground.POSTGRES, "postgresql://apiary:a-password@localhost/dagster")
    foreground.make_instance_home(home)
    stored = yaml.safe_load(settings.read_text("utf-8"))["storage"]
    assert stored == {"postgres": {"postgres_url": {"env": foreground.POSTGRES}}}, "the password stays out of the file"
    monkeypatch.delenv(foreground.POSTGRES)
    foreground.make_instance_home(home)
    assert settings.read_text("utf-8") == foreground.INSTANCE
    edited = foreground.EARLIER[-1] + "retention: {sensor: {purge_after_days: 7}}\n"
    settings.write_text(edited, "utf-8")
    foreground.make_instance_home(home)
    assert settings.read_text("utf-8") == edited
    told = capsys.readouterr().err
    assert "concurrency.pools.granularity: run" in told
    assert "run_monitoring.free_slots_after_run_end_seconds: 5" in told
    assert yaml.safe_load(foreground.INSTANCE)["run_monitoring"]["enabled"] is True


def test_a_dagster_home_that_a_person_set_is_used_and_one_of_ours_is_not_taken_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "")
    for name in ("one", "two"):
        assert foreground.make_instance_home(Home(tmp_path / name)) == tmp_path / name / "dagster"
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "own"))
    assert foreground.make_instance_home(Home(tmp_path / "one")) == tmp_path / "own"
    assert (tmp_path / "own" / "dagster.yaml").read_text("utf-8") == foreground.INSTANCE
    assert os.environ["DAGSTER_HOME"] == str(tmp_path / "own")
