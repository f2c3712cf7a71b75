"""The models on Spark say what they say on DuckDB: `make scale` in a small form, on the fleet of one day in two loads.

Does not belong here: whether every model has a translation (tests/dbt/test_engines.py).
"""

import re
from pathlib import Path

import pytest

from bench.scale import __main__ as scale
from bench.scale import cluster
from bench.scale.compare import Comparison
from pipelines.home import Home

REPOSITORY = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.scale

# With their ancestors they call every macro of dbt_project/macros/engine.sql (`test_every_engine_macro_is_run`).
MARTS = (
    "mart_usage_crosscheck", "agg_tasks_daily", "agg_concurrency_hourly", "mart_task_progress", "mart_alerts",
    "mart_session_tree", "fct_credit_ledger", "export_focus_daily",
)  # fmt: skip


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Comparison], dict[str, dict[str, object]]]:
    """Every mart as both engines have it, and what dbt says of each model and test on Spark."""
    pytest.importorskip("pyspark", reason="Spark is not installed: make test-scale makes its environment")
    if cluster.java() is None:
        pytest.skip(cluster.NO_JAVA)
    home = Home(tmp_path_factory.mktemp("scale"))
    _, marts, spark = scale.run(home, days=1, workers=0, loads=2, select=[f"+{mart}" for mart in MARTS])
    return marts, spark["nodes"]  # type: ignore[return-value]


def test_every_model_and_test_runs_on_spark(found):
    _, nodes = found
    assert len([name for name in nodes if name.startswith("model.")]) > 90
    assert {name: node["message"] for name, node in nodes.items() if node["status"] not in scale.PASSED} == {}


def test_no_row_of_any_mart_differs(found):
    marts, _ = found
    assert len(marts) > 25
    assert [mart for mart in marts if not mart.is_equal] == []
    assert sum(mart.rows for mart in marts) > 1000


def test_every_engine_macro_is_run(warehouse):
    result = warehouse.dbt("parse")
    manifest = result.result
    text = (REPOSITORY / "dbt_project" / "macros" / "engine.sql").read_text("utf-8")
    dispatched = {f"macro.apiary.{name}" for name in re.findall(r"adapter\.dispatch\('(\w+)'\)", text)}
    models: set[str] = set()
    waiting = [f"model.apiary.{mart}" for mart in MARTS]
    while waiting:
        name = waiting.pop()
        if name.startswith("model.") and name not in models:
            models.add(name)
            waiting += manifest.nodes[name].depends_on.nodes
    macros: set[str] = set()
    waiting = [macro for model in models for macro in manifest.nodes[model].depends_on.macros]
    while waiting:
        name = waiting.pop()
        if name.startswith("macro.apiary.") and name not in macros:
            macros.add(name)
            waiting += manifest.macros[name].depends_on.macros
    assert dispatched <= macros
