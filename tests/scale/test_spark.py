"""The models on Spark say what they say on DuckDB: `make scale` in a small form, on the fleet of one day.

Does not belong here: whether every model has a translation (tests/dbt/test_engines.py).
"""

import pytest

from bench.scale import __main__ as scale
from bench.scale import cluster
from bench.scale.compare import Comparison
from pipelines.home import Home

pytestmark = pytest.mark.scale


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Comparison], dict[str, dict[str, object]]]:
    """Every mart as both engines have it, and what dbt says of each model and test on Spark."""
    pytest.importorskip("pyspark", reason="Spark is not installed: make test-scale makes its environment")
    if cluster.java() is None:
        pytest.skip(cluster.NO_JAVA)
    home = Home(tmp_path_factory.mktemp("scale"))
    _, marts, spark = scale.run(home, days=1, workers=0, select=[])
    return marts, spark["nodes"]  # type: ignore[return-value]


def test_every_model_and_test_runs_on_spark(found):
    _, nodes = found
    assert len([name for name in nodes if name.startswith("model.")]) > 150
    assert {name: node["message"] for name, node in nodes.items() if node["status"] not in scale.PASSED} == {}


def test_no_row_of_any_mart_differs(found):
    marts, _ = found
    assert len(marts) > 60
    assert [mart for mart in marts if not mart.is_equal] == []
    assert sum(mart.rows for mart in marts) > 1000
