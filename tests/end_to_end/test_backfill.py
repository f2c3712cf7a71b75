"""A backfill that somebody asks for in the Dagster UI is one run, and gives what the runs of its days give, row by row.

Does not belong here: what single days hold (test_job.py), runs of some assets (tests/defs/test_partial_runs.py).
"""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest

from pipelines.home import Home
from pipelines.warehouse import rebuild
from tests.device.driving import append, dump, queen_folder, turn
from tests.end_to_end.dagster_server import dagster_server
from tests.end_to_end.driving import device, send

pytestmark = pytest.mark.long  # thirty whole runs
REPOSITORY = Path(__file__).resolve().parents[2]
DAYS = int(os.environ.get("APIARY_TEST_BACKFILL_DAYS", "30"))
SECONDS = 3600.0
# The days one after the other, as so many nights would run them, in one process: most of a run's time are imports.
DAILY = """
import sys
from datetime import date
from pipelines.commands.warehouse import run_job
from pipelines.home import Home
for day in sys.argv[2:]:
    run_job(Home.from_environment(), sys.argv[1], day=date.fromisoformat(day))
"""
ASSETS = """{ assetNodes(pipeline: {pipelineName: "daily", repositoryName: "__repository__",
    repositoryLocationName: "apiary"}) { assetKey { path } isMaterializable } }"""
PARTITIONS = """{ pipelineOrError(params: {pipelineName: "daily", repositoryName: "__repository__",
    repositoryLocationName: "apiary"}) { ... on Pipeline { partitionKeysOrError { partitionKeys } } } }"""
LAUNCH = """mutation ($asked: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $asked) {
    __typename ... on PythonError { message } } }"""
RUNS = "{ runsOrError { ... on Runs { results { status tags { key value } } } } }"
ENDED = {"SUCCESS", "FAILURE", "CANCELED"}


def arrivals(root: Path) -> list[str]:
    """A store in which something arrived on each of the last days; the days."""
    sender = device(root / "sender", store=(root / "store").as_uri())
    today = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
    days, seen = [], set()
    for back in range(DAYS, 0, -1):
        day = today - timedelta(days=back)
        session = f"session_{day:%Y%m%d}_100000_0a1b2c3d"
        turns = [turn(number, session=session, at=f"{day:%Y-%m-%d}T10:00:0{number}.5") for number in range(3)]
        append(queen_folder(root / "hive", session) / "events.jsonl", dump(*turns))
        send(sender, root / "hive")
        for path in (root / "store").rglob("*"):
            if path.is_file() and path not in seen:
                seen.add(path)
                os.utime(path, (day.timestamp(), day.timestamp()))
        days.append(f"{day:%Y-%m-%d}")
    return days


def tables(home: Home) -> dict[str, tuple[int, int]]:
    """Rows and a hash of them, of each table."""
    with duckdb.connect(str(home.warehouse), read_only=True) as connection:
        return rebuild.fingerprints(connection, home.warehouse.stem)


def test_a_backfill_equals_the_runs_of_its_days(tmp_path: Path) -> None:
    days, store = arrivals(tmp_path), (tmp_path / "store").as_uri()
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("APIARY_", "DAGSTER_"))}
    subprocess.run(
        [sys.executable, "-c", DAILY, store, *days], cwd=REPOSITORY, check=True, timeout=3 * SECONDS,
        env=clean | {"APIARY_HOME": str(tmp_path / "daily")},
    )  # fmt: skip
    with dagster_server(Home(tmp_path / "backfilled"), tmp_path / "log", APIARY_STORE=store) as server:
        nodes = server.ask(ASSETS)["assetNodes"]
        partitions = server.ask(PARTITIONS)["pipelineOrError"]["partitionKeysOrError"]["partitionKeys"]
        assert set(days) <= set(partitions)
        chosen = [{"path": node["assetKey"]["path"]} for node in nodes if node["isMaterializable"]]
        asked = {"assetSelection": chosen, "partitionNames": days, "tags": []}
        assert server.ask(LAUNCH, asked=asked)["launchPartitionBackfill"]["__typename"] == "LaunchBackfillSuccess"
        runs = server.wait_for(
            lambda: [run for run in server.ask(RUNS)["runsOrError"]["results"] if run["status"] in ENDED], SECONDS
        )
        assert server.ask(RUNS)["runsOrError"]["results"] == runs, "it is one run"
    tags = {tag["key"]: tag["value"] for tag in runs[0]["tags"]}
    assert (tags["dagster/asset_partition_range_start"], tags["dagster/asset_partition_range_end"]) == (
        days[0],
        days[-1],
    )
    assert runs[0]["status"] == "SUCCESS"
    daily, backfilled = tables(Home(tmp_path / "daily")), tables(Home(tmp_path / "backfilled"))
    assert daily["marts.fct_llm_turns"][0] == 3 * DAYS
    assert {name for name in daily if daily[name] != backfilled.get(name)} == set()
    assert daily.keys() == backfilled.keys()
