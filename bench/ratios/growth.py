"""B7, B9 and B11: all models built from the start, lines rated, and questions asked of a simulated fleet's warehouse.

Does not belong here: a day that is added to a history (history.py), the demo (job.py).
"""

import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import date
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.home import ROOT

DEVICES, DAYS, LAST_DAY = 6, 10, date(2026, 10, 31)
BUILT = ("table", "incremental")
THREADS = 2
ASKED = 40
"""How often each route is asked."""
LEAST = 0.1
"""Processor seconds below which a model's growth says nothing."""


class Statement(NamedTuple):
    """A model as DuckDB builds it: its relation, and the SELECT that dbt compiled."""

    model: str
    relation: str
    sql: str


# A home --------------------------------------------------------------------------------------------------------------


def apiary(home: Path, *arguments: str) -> str:
    """A command at a home; what it printed. Raises SystemExit if it fails."""
    program = str(Path(sys.executable).with_name("apiary"))
    settings = os.environ | {"APIARY_HOME": str(home)}
    done = subprocess.run([program, *arguments], env=settings, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"apiary {' '.join(arguments)}: {done.stderr[-2000:]}")
    return done.stdout


def deliver(home: Path, *, days: int, turns_per_day: int, last_day: date = LAST_DAY, seed: int = 1) -> None:
    """The batches of some days of the devices, in the home's landing."""
    apiary(
        home, "simulate", "--landing", "--devices", str(DEVICES), "--days", str(days), "--turns-per-day",
        str(turns_per_day), "--last-day", str(last_day), "--seed", str(seed),
    )  # fmt: skip


def prepare_models(folder: Path, turns: float) -> dict[str, int]:
    """A warehouse of so many turns, built and published once."""
    home = folder / "home"
    if not home.exists():  # several benchmarks ask the same one
        deliver(home, days=DAYS, turns_per_day=math.ceil(turns / (DEVICES * DAYS)))
        apiary(home, "run")
    return sums(home / "warehouse" / "apiary.duckdb")


def sums(warehouse: Path) -> dict[str, int]:
    """Turns, tokens and rated lines of a built warehouse."""
    import duckdb

    with duckdb.connect(str(warehouse), read_only=True) as connection:
        turns = connection.execute(
            "SELECT count(*), sum(input_tokens)::BIGINT, sum(output_tokens)::BIGINT FROM marts.fct_llm_turns"
        ).fetchone()
        lines = connection.execute("SELECT count(*) FROM marts.fct_rated_lines").fetchone()
    assert turns is not None
    assert lines is not None
    return dict(zip(("turns", "input_tokens", "output_tokens", "rated_lines"), (*turns, *lines), strict=True))


def copied(folder: Path, name: str) -> Path:
    """The built warehouse, to be built again."""
    target = folder / name / "apiary.duckdb"  # its name is the name of the database in compiled SQL
    shutil.rmtree(target.parent, ignore_errors=True)
    target.parent.mkdir(parents=True)
    shutil.copy(folder / "home" / "warehouse" / "apiary.duckdb", target)
    return target


# B7: all models ------------------------------------------------------------------------------------------------------


def build(folder: Path) -> dict[str, int]:
    """`dbt run --full-refresh`."""
    warehouse = copied(folder, "built")
    settings = os.environ | {"APIARY_WAREHOUSE": str(warehouse), "DO_NOT_TRACK": "1"}
    project = str(ROOT / "dbt_project")
    program = str(Path(sys.executable).with_name("dbt"))
    subprocess.run(
        [program, "--quiet", "run", "--full-refresh", "--project-dir", project, "--profiles-dir", project,
         "--target-path", str(folder / "target"), "--log-path", str(folder / "target")],
        env=settings, check=True,
    )  # fmt: skip
    return sums(warehouse)


def build_plainly(folder: Path) -> dict[str, int]:
    """The floor: DuckDB executes the same SELECTs."""
    warehouse = copied(folder, "plain")
    for _ in executed(warehouse, statements(folder / "home")):
        pass
    return sums(warehouse)


def statements(home: Path) -> list[Statement]:
    """What dbt compiled for the first build, in an order in which it can be executed. Views stay as they are."""
    nodes: dict[str, Any] = json.loads((home / "dbt" / "manifest.json").read_text("utf-8"))["nodes"]
    models = {name: node for name, node in nodes.items() if node["resource_type"] == "model"}
    order = TopologicalSorter({name: set(node["depends_on"]["nodes"]) for name, node in models.items()})
    compiled = home / "dbt" / "compiled" / "apiary"
    return [
        Statement(
            models[name]["name"],
            models[name]["relation_name"],
            (compiled / models[name]["original_file_path"]).read_text("utf-8"),
        )
        for name in order.static_order()
        if name in models and models[name]["config"]["materialized"] in BUILT
    ]


def executed(warehouse: Path, chosen: list[Statement]) -> Iterator[tuple[str, float]]:
    """Build models in one connection; of each its name and its processor seconds."""
    import duckdb

    with duckdb.connect(str(warehouse)) as connection:
        connection.execute(f"SET TimeZone = 'UTC'; SET threads = {THREADS}; SET memory_limit = '8GB'")
        for statement in chosen:
            begun = time.process_time()
            connection.execute(f"CREATE OR REPLACE TABLE {statement.relation} AS {statement.sql}")
            yield statement.model, time.process_time() - begun


def model_seconds(folder: Path) -> dict[str, float]:
    """Processor seconds of each model, executed plainly."""
    return dict(executed(copied(folder, "plain"), statements(folder / "home")))


def exponents(found: dict[int, dict[str, float]]) -> dict[str, float]:
    """How models grow with turns: the slope of log seconds over log turns (least squares), of those that take a while
    at the largest size. 1 is as fast as the turns, 2 as their square. `found`: seconds of each model by turns."""
    sizes = sorted(found)
    counted = [model for model, seconds in found[sizes[-1]].items() if seconds >= LEAST]
    return {model: _slope([(turns, found[turns][model]) for turns in sizes]) for model in counted}


def _slope(points: list[tuple[int, float]]) -> float:
    xs, ys = [math.log(x) for x, _ in points], [math.log(max(y, 0.001)) for _, y in points]
    middle_x, middle_y = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((x - middle_x) * (y - middle_y) for x, y in zip(xs, ys, strict=True)) / sum(
        (x - middle_x) ** 2 for x in xs
    )


# B9: rating ----------------------------------------------------------------------------------------------------------


def prepare_rating(folder: Path, turns: float) -> dict[str, int]:
    """The same warehouse; its lines and their tokens."""
    prepare_models(folder, turns)
    return _lines(folder / "home" / "warehouse" / "apiary.duckdb")


def rate(folder: Path) -> tuple[dict[str, int], float]:
    """The model `fct_rated_lines` built from the start, in exact decimals."""
    warehouse = copied(folder, "rated")
    chosen = [statement for statement in statements(folder / "home") if statement.model == "fct_rated_lines"]
    ((_, seconds),) = executed(warehouse, chosen)
    return _lines(warehouse), seconds


def rate_in_floats(folder: Path) -> tuple[dict[str, int], float]:
    """The floor: polars makes the lines of the turns and multiplies floats; one price each, no tiers, no agreements, no
    bounds. What it costs in all is compared with the exact sum to a millionth."""
    import duckdb
    import polars as pl

    warehouse = folder / "home" / "warehouse" / "apiary.duckdb"
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        turns = connection.execute(
            "SELECT turn_id, tenant_id, model, usage_date, occurred_at, input_tokens, output_tokens,"
            " cache_read_input_tokens AS cache_read, coalesce(cache_write_input_tokens, 0) AS cache_write_unknown"
            " FROM marts.fct_llm_turns"
        ).pl()
        prices = connection.execute(
            "SELECT DISTINCT model, component, pricing_unit_price::DOUBLE AS unit_price FROM marts.fct_rated_lines"
        ).pl()
        exact = connection.execute("SELECT sum(list_cost)::DOUBLE FROM marts.fct_rated_lines").fetchone()
    assert exact is not None
    begun = time.process_time()
    lines = (
        turns.lazy()
        .with_columns(
            input_uncached=pl.col("input_tokens") - pl.col("cache_read") - pl.col("cache_write_unknown"),
            output=pl.col("output_tokens"),
        )
        .unpivot(
            on=["output", "input_uncached", "cache_read", "cache_write_unknown"],
            index=["turn_id", "tenant_id", "model", "usage_date", "occurred_at"],
            variable_name="component",
            value_name="quantity",
        )
        .filter((pl.col("quantity") > 0) | (pl.col("component") == "output"))
        .join(prices.lazy(), on=["model", "component"], how="left")
        .with_columns(cost=pl.col("quantity") * pl.col("unit_price") * 1e-6)
        .collect()
    )
    seconds = time.process_time() - begun
    cost = lines["cost"].sum()
    if exact[0] and not math.isclose(cost, exact[0], rel_tol=1e-6):
        raise SystemExit(f"floats cost {cost}, the exact lines {exact[0]}")
    return {"rated_lines": len(lines), "tokens": int(lines["quantity"].sum())}, seconds


def _lines(warehouse: Path) -> dict[str, int]:
    import duckdb

    with duckdb.connect(str(warehouse), read_only=True) as connection:
        found = connection.execute("SELECT count(*), sum(quantity)::BIGINT FROM marts.fct_rated_lines").fetchone()
    assert found is not None
    return {"rated_lines": found[0], "tokens": found[1]}


# B11: questions ------------------------------------------------------------------------------------------------------


def prepare_questions(folder: Path, turns: float) -> dict[str, int]:
    """The same warehouse; how many answers are awaited."""
    prepare_models(folder, turns)
    return {"answers": ASKED * len(_routes(folder))}


def ask_routes(folder: Path) -> tuple[dict[str, int], float]:
    """Every route of the API that lists or adds up, with a tenant's key: p95 in milliseconds of the slowest one."""
    from starlette.testclient import TestClient

    from pipelines.home import Home
    from pipelines.serve import keys
    from pipelines.serve.app import make_app

    home = Home(folder / "home")
    client = TestClient(make_app(home), headers={"X-API-Key": keys.make(home, "lantern-freight")[1]})
    slowest, answers = 0.0, 0
    for route in _routes(folder):
        taken = []
        for _ in range(ASKED):
            begun = time.monotonic()
            answers += client.get(route).raise_for_status().status_code == 200
            taken.append(time.monotonic() - begun)
        slowest = max(slowest, _p95(taken))
    return {"answers": answers}, slowest


def ask_parquet(folder: Path) -> tuple[dict[str, int], float]:
    """The floor: DuckDB, opened anew for each question, adds up the tenant's usage in the published Parquet."""
    import duckdb

    mart = folder / "home" / "published" / "current" / "agg_usage_session_daily.parquet"
    taken = []
    for _ in range(ASKED * len(_routes(folder))):
        begun = time.monotonic()
        with duckdb.connect() as connection:
            connection.execute(
                "SELECT model, sum(turns), sum(input_tokens), sum(output_tokens) FROM read_parquet(?)"
                " WHERE tenant_id = 'lantern-freight' GROUP BY model",
                [str(mart)],
            ).fetchall()
        taken.append(time.monotonic() - begun)
    return {"answers": len(taken)}, _p95(taken)


def _p95(taken: list[float]) -> float:
    return sorted(taken)[math.ceil(0.95 * len(taken)) - 1] * 1000


def _routes(folder: Path) -> list[str]:
    """The routes without a parameter in their path, and the rollups."""
    from pipelines.home import Home
    from pipelines.serve.app import make_app

    described = make_app(Home(folder / "home")).openapi()["paths"]
    plain = [path for path in described if path.startswith("/api/") and "{" not in path and not path.endswith("rollup")]
    return plain + [f"/api/usage/rollup?group_by={by}" for by in ("model", "user", "session", "day")]
