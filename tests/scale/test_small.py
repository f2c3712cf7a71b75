"""Chosen models say on Spark what they say on DuckDB, built from the inputs that DuckDB made: `make test-engines`.

Together they call every macro that differs from engine to engine, and need every kind of rule of the translation. Where
one of them reads another it reads Spark's, which is compared as well.
Does not belong here: whole builds, in several loads and killed, and DuckLake, whose SQL is DuckDB's (test_marts.py).
"""

import random
import re
from pathlib import Path

import duckdb
import pytest
from dbt.contracts.graph.manifest import Manifest

from bench.scale import __main__ as scale
from bench.scale import inputs
from bench.scale.compare import compare
from pipelines.engine import Engine
from pipelines.home import Home
from pipelines.simulate import fleet
from tests.dbt.test_incremental import small_fleet
from tests.warehouse import RECEIVED, Warehouse

ENGINE = Path(__file__).resolve().parents[2] / "dbt_project" / "macros" / "engine.sql"
# With what each is here for; `test_every_engine_macro_is_called` fails when a macro has none.
MODELS = (
    "agg_tools_daily",  # quantile
    "agg_usage_quarter_hourly",  # bucket_of
    "export_focus_daily",  # json_object_of
    "fct_credit_ledger",  # a recursion that is run step by step
    "fct_fan_outs",  # a named window with a frame
    "fct_rated_lines",  # fits_pattern, utc_weekday_bit, utc_midnight, a star that replaces
    "fct_trigger_firings",  # earliest, pair
    "fct_triggers",  # seconds_after
    "int_alerts__runs_ended",  # from_micros, nearest_integer
    "int_billing__booked_lines",  # a row's key
    "int_billing__original_lines",  # whole_quotient, integers of 128 bits, FILTER of a window's aggregate
    "int_sessions__tree_resolved",  # path_minimum_from, path_steps, path_with
    "int_status__session_days",  # fingerprint, days_between, numbers_between
    "mart_budget",  # dates_between, next_period
    "mart_operator_actions",  # seconds_after, of two weeks: more microseconds than an integer of 32 bits holds
    "mart_session_tree",  # path_text
    "mart_task_progress",  # each_of
    "stg_wire__device_zones",  # time_zone_names
    "stg_wire__fork_ancestors",  # walk_up
    "stg_wire__session_offsets",  # local_time, path_of_all
)
# A session whose walk up leads into a cycle of two others.
CYCLE = [
    ("sessions", {"record_id": child, "session_id": child, "parent_session_id": parent, "evidence": "worker_meta",
                  "observed_at": RECEIVED})
    for child, parent in (("cycle_0", "cycle_2"), ("cycle_1", "cycle_2"), ("cycle_2", "cycle_1"))
]  # fmt: skip
# A task that waits for two others.
BLOCKED = [
    ("tasks", {"record_id": f"task_{number}", "list_id": "session_0", "list_kind": "session", "task_id": number,
               "item": "task", "status": "pending", "observed_at": RECEIVED, "blocked_by_ids": others})
    for number, others in (("7", None), ("8", None), ("9", "7,8"))
]  # fmt: skip
# The fleet's day is one.
SATURDAYS = "UPDATE billing.price_book SET dow_mask = 32 WHERE component = 'output'"
# A plan that costs nothing: without ANSI rules Spark writes a decimal of zero as `0E-15`.
INCLUDED = "UPDATE billing.plan_items SET included_units = 1000000 WHERE item = 'colony_day'"
ACTION = """INSERT INTO wire.operator_actions VALUES
    ('act', 'northwind-orchards', 'queen:queen_technology', NULL, 'ada', 'fire', 'derailed',
     '2026-10-31 12:00:00+00')"""
# Each engine has its own numbers; which rows are the same row is what they say.
FINGERPRINT = "_fingerprint"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    if reason := scale.missing(Engine.SPARK):
        pytest.skip(reason)
    pytest.importorskip("pyspark", reason="Spark is not installed: make test-engines makes its environment")
    return Home(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def warehouse_of_day(home: Home) -> Warehouse:
    """The models and all that they are made of on DuckDB, of the fleet of one day and of what it has none of."""
    warehouse, _ = scale.loaded_on_duckdb(home, [fleet.demo_fleet(last_day=scale.LAST_DAY, days=1)])
    warehouse.load([*small_fleet(random.Random(1)), *CYCLE, *BLOCKED])
    warehouse.execute(SATURDAYS)
    warehouse.execute(INCLUDED)
    warehouse.execute(ACTION)
    warehouse.run("--select", *(f"+{model}" for model in MODELS))
    return warehouse


@pytest.fixture(scope="module")
def on_spark(home: Home, warehouse_of_day: Warehouse) -> scale.Built:
    tables = home.root / "inputs" / "alone"
    relations = read_by_models(parsed(warehouse_of_day))
    assert set(inputs.export(warehouse_of_day.path, tables, relations)) == relations
    return scale.alone_on_spark(home, tables, MODELS)


def parsed(warehouse: Warehouse) -> Manifest:
    manifest = warehouse.dbt("parse").result
    assert isinstance(manifest, Manifest)
    return manifest


def read_by_models(manifest: Manifest) -> set[str]:
    """What the chosen models read and are not themselves."""
    nodes = manifest.nodes | manifest.sources
    parents = {parent for model in MODELS for parent in manifest.nodes[f"model.apiary.{model}"].depends_on.nodes}
    return {f"{nodes[name].schema}.{nodes[name].name}" for name in parents if nodes[name].name not in MODELS}


@pytest.mark.scale
def test_no_row_of_any_model_differs(home: Home, warehouse_of_day: Warehouse, on_spark: scale.Built) -> None:
    assert on_spark.failed == {}
    assert {name.removeprefix("model.apiary.") for name in on_spark.nodes} == set(MODELS)
    found = compare(warehouse_of_day.path, scale.marts_of(home, Engine.SPARK), models=MODELS, but=[FINGERPRINT])
    assert sorted(model.mart for model in found) == sorted(MODELS)
    assert [model for model in found if not model.is_equal] == []
    assert [model.mart for model in found if not model.rows] == []
    free = """SELECT DISTINCT "SkuPriceId" FROM marts.export_focus_daily WHERE "SkuPriceId" LIKE '%@0%'"""
    assert warehouse_of_day.query(free) == [("quarry-colonies@0.",)]


@pytest.mark.scale
def test_fingerprints_tell_as_many_rows_apart(home: Home, warehouse_of_day: Warehouse, on_spark: scale.Built) -> None:
    query = f"SELECT count(*), count(DISTINCT {FINGERPRINT}) FROM"
    found = duckdb.execute(f"{query} '{scale.marts_of(home, Engine.SPARK)}/int_status__session_days/*.parquet'")
    assert found.fetchall() == warehouse_of_day.query(f"{query} analytics.int_status__session_days")


def test_every_engine_macro_is_called(warehouse: Warehouse) -> None:
    """By the chosen models themselves: what their ancestors call is not run there."""
    manifest = parsed(warehouse)
    dispatched = re.findall(r"adapter\.dispatch\('(\w+)'\)", ENGINE.read_text("utf-8"))
    called: set[str] = set()
    waiting = [macro for model in MODELS for macro in manifest.nodes[f"model.apiary.{model}"].depends_on.macros]
    while waiting:
        name = waiting.pop()
        if name.startswith("macro.apiary.") and name not in called:
            called.add(name)
            waiting += manifest.macros[name].depends_on.macros
    assert {name for name in dispatched if f"macro.apiary.{name}" not in called} == set()
