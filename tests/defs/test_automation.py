"""What starts and tries again by itself: the sensor of arrivals, steps whose store is away, what each partition says.

Does not belong here: what is defined (test_definitions.py), runs that die (test_orphaned_runs.py).
"""

import json
import os
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from pipelines.contract.keys import Prefix
from pipelines.store import FolderStore, StoreUnavailableError


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral(str(tmp_path_factory.mktemp("dagster"))) as made:
        yield made


@pytest.fixture(autouse=True)
def _own_warehouse(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Loading the definitions sets a variable for dbt, which other tests must not see."""
    monkeypatch.setenv("APIARY_WAREHOUSE", str(tmp_path / "none.duckdb"))


def arrive(store: FolderStore, seq: int, at: datetime, device: str = "0" * 32) -> Path:
    """A manifest, as the sensor sees one: by its key and its time."""
    key = Prefix("eu", "acme", device, "1" * 16).manifest(seq, f"{seq:064x}")
    store.put(key, b"{}")
    path = store.root / key
    os.utime(path, (at.timestamp(), at.timestamp()))
    return path


class Ticks:
    """The sensor, tick by tick, with its cursor."""

    def __init__(self, instance: dg.DagsterInstance, store: FolderStore) -> None:
        self.instance, self.store, self.cursor = instance, store, None

    def tick(self) -> list[dg.RunRequest]:
        from pipelines.defs.arrival_sensor import arrivals
        from pipelines.defs.resources import StoreResource

        with dg.build_sensor_context(self.instance, cursor=self.cursor) as context:
            told = arrivals(context, store=StoreResource(url=self.store.url))
            self.cursor = told.cursor if isinstance(told, dg.SensorResult) else context.cursor
        return list(told.run_requests or ()) if isinstance(told, dg.SensorResult) else []


def test_the_sensor_asks_for_one_run_of_all_that_is_new_and_is_quiet_otherwise(
    instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.defs import partitions

    now = datetime.now(UTC).replace(microsecond=0)
    monkeypatch.setattr(partitions, "FIRST_DAY", date(2020, 1, 1))
    ticks = Ticks(instance, FolderStore(tmp_path / "store"))
    assert ticks.tick() == [], "an empty landing"
    arrive(ticks.store, 1, now - timedelta(days=2))
    latest = arrive(ticks.store, 2, now)
    (request,) = ticks.tick()
    assert request.tags["dagster/asset_partition_range_start"] == f"{now - timedelta(days=2):%Y-%m-%d}"
    assert request.tags["dagster/asset_partition_range_end"] == f"{datetime.now(UTC):%Y-%m-%d}"
    assert ticks.tick() == ticks.tick() == []

    arrive(ticks.store, 1, now - timedelta(days=1), device="2" * 32)
    (older,) = ticks.tick()
    assert older.run_key != request.run_key, "copied in with an older time"
    assert ticks.tick() == []
    latest.unlink()
    assert ticks.tick() == [], "what is erased is nothing new"
    arrive(ticks.store, 3, now)
    (again,) = ticks.tick()
    assert len({request.run_key, older.run_key, again.run_key}) == 3

    from pipelines.defs.schedules import daily

    run = instance.create_run_for_job(
        dg.GraphDefinition(daily.name).to_job(name=daily.name), status=dg.DagsterRunStatus.STARTED
    )
    arrive(ticks.store, 4, now + timedelta(seconds=1))
    assert ticks.tick() == [], "a run is under way"
    instance.report_run_canceled(run)
    assert len(ticks.tick()) == 1, "and was not forgotten"


def tried(instance: dg.DagsterInstance, errors: list[Exception]) -> tuple[dg.ExecuteInProcessResult, int]:
    """A step that raises these, one for each attempt, and how often it began."""
    from pipelines.defs.retries import retried

    begun = []

    @dg.op
    def ask(context: dg.OpExecutionContext) -> None:
        begun.append(1)
        with retried(context):
            if errors:
                raise errors.pop(0)

    @dg.job(executor_def=dg.in_process_executor)
    def asking() -> None:
        ask()

    return asking.execute_in_process(instance=instance, raise_on_error=False), len(begun)


def test_a_step_whose_store_is_away_is_tried_again_and_no_other(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.defs import retries

    monkeypatch.setattr(retries, "FIRST_SECONDS", 0.01)
    waited: list[float] = []
    again = dg.RetryRequested

    def noted(**asked: Any) -> dg.RetryRequested:
        waited.append(asked["seconds_to_wait"])
        return again(**asked)

    monkeypatch.setattr(dg, "RetryRequested", noted)
    away = [StoreUnavailableError(f"away {number}") for number in range(9)]
    result, begun = tried(instance, [*away[:2], StoreUnavailableError("away", retry_after=0.5)])
    assert (result.success, begun) == (True, 4)
    assert waited == [0.01, 0.02, 0.5], "twice as long each time, or as long as the store asks for"
    result, begun = tried(instance, list(away))
    assert (result.success, begun) == (False, 1 + retries.MOST)
    from pipelines.defs.foreground import _why

    assert "away 3" in _why(result), "the last error ends the run, in its own words"
    assert tried(instance, [ValueError("wrong")])[1] == 1


def test_each_partition_says_what_arrived_on_its_days(
    instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import duckdb

    from pipelines.defs import partitions, wire
    from pipelines.warehouse import load

    today = datetime.now(UTC).date()
    first = today - timedelta(days=3)
    monkeypatch.setattr(partitions, "FIRST_DAY", first)
    monkeypatch.setattr(wire, "FIRST_DAY", first)
    days = [first - timedelta(days=9), first, today, today]
    with duckdb.connect() as connection:
        load.prepare(connection)
        for number, day in enumerate(days):
            connection.execute(
                "INSERT INTO wire.batches BY NAME SELECT $n AS manifest_key, $status AS status, $reason AS reason,"
                " 10 AS rows_new, $day::DATE::TIMESTAMPTZ AS received_at",
                {
                    "n": str(number), "day": day, "status": "quarantined" if number == 3 else "loaded",
                    "reason": "hash_mismatch" if number == 3 else None,
                },
            )  # fmt: skip
        told: dict[tuple[str, str], dict[str, Any]] = {}

        class Context:
            partition_keys = [f"{first + timedelta(days=number)}" for number in range(4)]  # noqa: RUF012

            def add_asset_metadata(self, found: dict[str, Any], key: list[str], partition_key: str) -> None:
                told[key[1], partition_key] = dict(found)

        wire._describe_days(Context(), connection, first, today)
    assert told["batches", str(first)]["batches"] == 2, "the first partition covers what came before it"
    assert told["batches", str(first)]["rows_new"] == 20
    assert told["batches", str(first + timedelta(days=1))] == {"rows": 0}
    assert (told["batches", str(today)]["loaded"], told["batches", str(today)]["quarantined"]) == (1, 1)
    assert told["quarantine", str(today)] == {"hash_mismatch": 1}
    assert {key for name, key in told if name == "llm_turns"} == set(Context.partition_keys)


def test_the_check_of_quarantine_says_why_which_and_whose() -> None:
    from pipelines.defs.wire import _judge_quarantine

    assert _judge_quarantine([]).passed
    refused = [
        {"reason": "hash_mismatch", "tenant_id": "acme", "device_id": f"{number}", "manifest_key": f"m/{number}",
         "refused_at": datetime(2026, 11, 20, tzinfo=UTC)}
        for number in range(60)
    ]  # fmt: skip
    found = _judge_quarantine(refused)
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.WARN)
    records = found.metadata["latest"].value.records
    assert len(records) == 50
    assert records[0].data == {
        "reason": "hash_mismatch", "tenant_id": "acme", "device_id": "59", "manifest_key": "m/59",
        "refused_at": "2026-11-20 00:00:00+00:00",
    }  # fmt: skip
    assert found.metadata["batches"].value == 60
    assert json.dumps(found.metadata["reasons"].value) == '{"hash_mismatch": 60}'
    assert found.metadata["what to do"].value == "apiary quarantine show m/59"
