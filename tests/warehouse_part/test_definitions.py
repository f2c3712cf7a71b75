"""Which changes of the project make models be built from the start.

Does not belong here: that a home of an earlier release is upgraded so (tests/end_to_end/test_upgrade.py).
"""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pipelines.defs import dbt_project
from pipelines.warehouse import definitions

Manifest = dict[str, Any]
TURNS = "model.apiary.fct_llm_turns"


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    found: Manifest = dbt_project.parsed()
    return found


@pytest.fixture
def built(tmp_path: Path, manifest: Manifest) -> Path:
    """A warehouse whose incremental models are there, built by this manifest."""
    path = tmp_path / "warehouse.duckdb"
    with duckdb.connect(str(path)) as connection:
        for name in definitions.fingerprints(manifest):
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {name.split('.')[0]}")
            connection.execute(f"CREATE TABLE {name} (a INTEGER)")
    definitions.record(path, manifest, built=definitions.fingerprints(manifest))
    return path


def change_rule(manifest: Manifest) -> None:
    manifest["nodes"][TURNS]["raw_code"] += " where true"


def change_ancestor(manifest: Manifest) -> None:
    manifest["nodes"]["model.apiary.stg_wire__llm_turns"]["raw_code"] += " where true"


def change_macro(manifest: Manifest) -> None:
    manifest["macros"]["macro.apiary.cache_convention"]["macro_sql"] += "{# #}"


def add_column(manifest: Manifest) -> None:
    manifest["nodes"][TURNS]["columns"]["added"] = {"name": "added", "data_type": "bigint"}


@pytest.mark.parametrize("change", [change_rule, change_ancestor, change_macro, add_column])
def test_what_decides_rows_is_found(built: Path, manifest: Manifest, change: Callable[[Manifest], None]) -> None:
    assert definitions.changed(built, manifest) == []
    changed = copy.deepcopy(manifest)
    change(changed)
    found = definitions.changed(built, changed)
    assert "marts.fct_llm_turns" in found
    assert "marts.agg_usage_session_daily" in found, "and what is built on it"
    definitions.record(built, changed, built=definitions.fingerprints(changed))
    assert definitions.changed(built, changed) == []


def test_words_tests_and_readers_decide_no_rows(built: Path, manifest: Manifest) -> None:
    changed = copy.deepcopy(manifest)
    changed["nodes"][TURNS]["description"] = "Other words."
    changed["nodes"][TURNS]["config"]["meta"]["audience"] = []
    for name in [name for name in changed["nodes"] if name.startswith("test.")]:
        del changed["nodes"][name]
    assert definitions.changed(built, changed) == []


def test_a_warehouse_of_before_definitions_were_written_down_is_built_anew(built: Path, manifest: Manifest) -> None:
    with duckdb.connect(str(built)) as connection:
        connection.execute("DROP TABLE core.model_definitions")
    assert definitions.changed(built, manifest) == sorted(definitions.fingerprints(manifest))


def test_where_nothing_was_built_nothing_changed(tmp_path: Path, manifest: Manifest) -> None:
    assert definitions.changed(tmp_path / "none.duckdb", manifest) == []
    with duckdb.connect(str(tmp_path / "empty.duckdb")):
        pass
    assert definitions.changed(tmp_path / "empty.duckdb", manifest) == []


def test_what_no_model_makes_any_more_is_dropped(built: Path, manifest: Manifest) -> None:
    """A mart that a release removed would be published for ever as it was; what others than models made stays."""
    others = {"wire.batches", "billing.seats", "marts.agg_usage_session_daily", definitions.TABLE}
    with duckdb.connect(str(built)) as connection:
        for name in ("marts.mart_daily_billing", "core.int_gone", "wire.batches", "billing.seats"):
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {name.split('.')[0]}")
            connection.execute(f"CREATE TABLE {name} (a INTEGER)")
        for name in ("stg_gone", "stg_wire__llm_turns"):
            connection.execute("CREATE SCHEMA IF NOT EXISTS staging")
            connection.execute(f"CREATE VIEW staging.{name} AS FROM wire.batches")
    definitions.record(built, manifest, built=[])
    with duckdb.connect(str(built)) as connection:
        left = {
            f"{schema}.{name}"
            for schema, name in connection.execute(
                "SELECT table_schema, table_name FROM information_schema.tables"
            ).fetchall()
        }
    assert left == {*definitions.fingerprints(manifest), *others, "staging.stg_wire__llm_turns"}


def test_a_build_of_some_models_says_nothing_of_the_others(built: Path, manifest: Manifest) -> None:
    changed = copy.deepcopy(manifest)
    change_rule(changed)
    definitions.record(built, changed, built=["marts.agg_usage_session_daily"])
    found = definitions.changed(built, changed)
    assert "marts.fct_llm_turns" in found
    assert "marts.agg_usage_session_daily" not in found
