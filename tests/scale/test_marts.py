"""The models say on each engine what they say on DuckDB: `make scale` small, on the fleet of one day in two loads.

Each build is killed in the middle, and started again.
Does not belong here: models on their own (test_small.py), whether every model has a translation
(tests/dbt/test_engines.py).
"""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.scale import __main__ as scale
from bench.scale import postgres
from pipelines.engine import Engine
from pipelines.home import Home
from pipelines.simulate import fleet
from pipelines.warehouse import ducklake

pytestmark = pytest.mark.scale

MARTS = (
    "mart_usage_crosscheck", "agg_tasks_daily", "agg_concurrency_hourly", "mart_task_progress", "mart_alerts",
    "mart_session_tree", "fct_credit_ledger", "export_focus_daily",
)  # fmt: skip
SELECT = [f"+{mart}" for mart in MARTS]
SECONDS = 900.0


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("scale"))


@pytest.fixture(scope="module")
def duckdb(home: Home) -> scale.OnDuckDB:
    devices = fleet.demo_fleet(last_day=scale.LAST_DAY, days=1)
    return scale.on_duckdb(home, [devices[0::2], devices[1::2]], SELECT)


@pytest.fixture(scope="module", params=list(scale.TITLES))
def found(request: pytest.FixtureRequest, home: Home) -> scale.Outcome:
    """What an engine built, and how its marts differ."""
    engine: Engine = request.param
    if reason := scale.missing(engine):
        pytest.skip(reason)
    if engine is Engine.SPARK:
        pytest.importorskip("pyspark", reason="Spark is not installed: make test-scale makes its environment")
    duckdb: scale.OnDuckDB = request.getfixturevalue("duckdb")
    if engine is Engine.SPARK:
        tables = home.root / engine / "tables" / "marts.db"
        begun = scale.started_on_spark(home, duckdb.inputs, "local[2]", SELECT)
        kill_in_the_middle(begun, home, engine, lambda: len(list(tables.glob("*"))))
        return scale.outcome(engine, "", home, duckdb, scale.on_spark(home, duckdb.inputs, "local[2]", SELECT))
    with postgres.running(home.root / "postgres") as address:
        lake = postgres.new_lake(address, "lake", home.root / "ducklake" / "data")
        arguments = [home.store_url, home.books, *duckdb.inputs, "--select", *SELECT]
        begun = scale.started(engine, home, arguments, lake)
        kill_in_the_middle(begun, home, engine, lambda: marts_in(lake))
        return scale.outcome(engine, "", home, duckdb, scale.on_ducklake(home, lake, duckdb.inputs, SELECT))


def kill_in_the_middle(
    process: "subprocess.Popen[bytes]", home: Home, engine: Engine, marts: Callable[[], int]
) -> None:
    """Kill a build when it has made some of the marts."""
    end = time.monotonic() + SECONDS
    while marts() < 5:
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(1)
    process.kill()
    process.wait()
    assert not (scale.marts_of(home, engine) / "results.json").exists()


def marts_in(lake: dict[str, str]) -> int:
    """How many a DuckLake has."""
    if not (Path(lake[ducklake.DATA]) / "marts").exists():
        return 0
    with ducklake.connect(lake) as reader:
        (marts,) = reader.execute(COUNT_MARTS).fetchone() or (0,)
    return int(marts)


COUNT_MARTS = "SELECT count(*) FROM duckdb_tables() WHERE database_name = 'lake' AND schema_name = 'marts'"


def test_every_model_and_test_runs(found: scale.Outcome) -> None:
    assert len([name for name in found.built.nodes if name.startswith("model.")]) > 90
    assert {name: node["message"] for name, node in found.built.failed.items()} == {}


def test_no_row_of_any_mart_differs(found: scale.Outcome) -> None:
    assert len(found.marts) > 25
    assert [mart for mart in found.marts if not mart.is_equal] == []
    assert sum(mart.rows for mart in found.marts) > 1000
