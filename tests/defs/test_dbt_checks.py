"""dbt tests with names and descriptions that people can read, and a run of some models that tests no others.

Does not belong here: that every test of this project is a described check (test_definitions.py).
"""

import os
from typing import Any

import pytest

from pipelines.defs.dbt_checks import MAX_NAME, with_readable_tests

pytestmark = pytest.mark.services


def test_node(name: str, **more: Any) -> dict[str, Any]:
    return {"resource_type": "test", "name": name, "attached_node": "model.apiary.fct_tasks", "meta": {}} | more


test_node.__test__ = False


def generic(name: str, test: str, **arguments: Any) -> dict[str, Any]:
    return test_node(name, test_metadata={"name": test, "kwargs": {"model": "{{ x }}", **arguments}})


@pytest.mark.parametrize(
    ("node", "name", "description"),
    [
        (generic("not_null_fct_tasks_task_id", "not_null", column_name="task_id"), "not_null_task_id",
         "task_id is never NULL."),
        (generic("accepted_values_fct_tasks_x__a__b", "accepted_values", column_name="x", values=["a", "b"]),
         "accepted_values_x__a__b", "x is one of: a, b."),
        (generic("sums_equal_fct_tasks_a", "sums_equal", to="ref('agg_x')", group_by=["a"], measures=["m", "n"]),
         "sums_equal_a", "For each a, the sums of m, n are those of agg_x."),
        (generic("unique_combination_fct_tasks_a__b", "unique_combination", arguments={"columns": ["a", "b"]}),
         "unique_combination_a__b", "No two rows have the same a, b."),
        (test_node("assert_x", attached_node=None, raw_code="-- One line\n-- and another.\nselect 1"), "assert_x",
         "One line and another."),
        (test_node("assert_y", attached_node=None, raw_code="{# In jinja. #}\nselect 1"), "assert_y", "In jinja."),
        (generic("unique_fct_tasks_a", "unique", column_name="a") | {"description": "Said by hand."}, "unique_a",
         "Said by hand."),
    ],
)  # fmt: skip
def test_a_test_is_named_and_described(node: dict[str, Any], name: str, description: str) -> None:
    made = with_readable_tests({"nodes": {"test.x": node}, "metadata": {}})
    assert made["nodes"]["test.x"]["name"] == name
    assert made["nodes"]["test.x"]["meta"]["description"] == description
    assert "description" not in node["meta"], "dbt's own stays as it is"


def test_long_names_that_begin_alike_stay_different() -> None:
    names = [f"non_negative_fct_tasks_{'input_tokens__' * 20}{last}" for last in ("a", "b")]
    nodes = {name: generic(name, "non_negative", columns=["a"]) for name in names}
    made = [node["name"] for node in with_readable_tests({"nodes": nodes})["nodes"].values()]
    assert len(set(made)) == 2
    assert all(len(name) <= MAX_NAME and name.startswith("non_negative_input_tokens") for name in made)


@pytest.mark.parametrize("before", [None, "eager"])
def test_a_run_of_some_models_tests_none_that_is_not_built_with_them_or_before_them(
    before: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Dagster reads the variable when it makes the call, and puts its own in its place where it must."""
    monkeypatch.setenv("APIARY_WAREHOUSE", str(tmp_path_factory.mktemp("nothing") / "none.duckdb"))
    from dagster_dbt.asset_utils import DBT_INDIRECT_SELECTION_ENV

    from pipelines.defs import transform

    monkeypatch.delenv(DBT_INDIRECT_SELECTION_ENV, raising=False)
    if before is not None:
        monkeypatch.setenv(DBT_INDIRECT_SELECTION_ENV, before)
    with transform._buildable_selection():
        assert os.environ[DBT_INDIRECT_SELECTION_ENV] == "buildable"
    assert os.environ.get(DBT_INDIRECT_SELECTION_ENV) == before
