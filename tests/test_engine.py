"""One switch for the engine: what it allows, and that the others cost nothing where they are not chosen.

Does not belong here: what the engines make of the models (tests/scale).
"""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from pipelines import cli
from pipelines.engine import Engine, EngineError, require, selected
from pipelines.home import Home

REPOSITORY = Path(__file__).resolve().parents[1]
LOADS = "import pipelines.warehouse.load, pipelines.commands.warehouse, pipelines.engine, sys; print(*sys.modules)"


@pytest.mark.parametrize("environment", [{}, {"APIARY_ENGINE": ""}, {"APIARY_ENGINE": "duckdb"}])
def test_it_is_duckdb_where_nothing_is_said(environment: dict[str, str]) -> None:
    assert selected(environment) is Engine.DUCKDB
    require(Engine.DUCKDB, environment=environment)


@pytest.mark.parametrize("name", ["ducklake", "spark"])
def test_another_is_refused_by_what_cannot_run_on_it(name: str) -> None:
    assert selected({"APIARY_ENGINE": name}) == name
    with pytest.raises(EngineError, match=f"APIARY_ENGINE is {name}: this runs on duckdb alone"):
        require(Engine.DUCKDB, environment={"APIARY_ENGINE": name})


@pytest.mark.parametrize("command", [["run"], ["webserver"], ["daemon"]])
def test_an_unknown_one_is_one_line_with_those_there_are(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("APIARY_HOME", str(tmp_path))
    monkeypatch.setenv("APIARY_ENGINE", "duckdbb")
    assert cli.main(command) == 2
    assert capsys.readouterr().err == "apiary: APIARY_ENGINE is 'duckdbb': it is one of duckdb, ducklake, spark\n"
    assert not (tmp_path / "warehouse" / "apiary.duckdb").exists()


@pytest.mark.parametrize(
    "command",
    [
        ["erase", "--tenant", "acme", "--yes"], ["erase", "--pending"], ["retention", "apply"], ["rebuild"],
        ["shadow", "--contract", "contract"], ["backup", "--to", "elsewhere"], ["restore", "warehouse.tar"],
    ],
)  # fmt: skip
def test_what_copies_or_erases_a_file_is_refused_on_a_ducklake(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = Home(tmp_path / "home")
    monkeypatch.setenv("APIARY_HOME", str(home.root))
    monkeypatch.setenv("APIARY_ENGINE", "ducklake")
    assert cli.main(command) == 2
    assert capsys.readouterr().err == (
        "apiary: APIARY_ENGINE is ducklake: this runs on duckdb alone; see docs/growing.md\n"
    )
    assert not home.warehouse.exists()
    assert not (home.root / "store").exists(), "nothing was put on the list"


def test_a_warehouse_without_its_settings_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("APIARY_HOME", str(tmp_path))
    monkeypatch.setenv("APIARY_ENGINE", "ducklake")
    for name in ("APIARY_DUCKLAKE_CATALOG", "APIARY_DUCKLAKE_DATA"):
        monkeypatch.delenv(name, raising=False)
    assert cli.main(["quarantine", "list"]) == 1
    said = "APIARY_DUCKLAKE_CATALOG is not set: a DuckLake is a PostgreSQL database, and a folder or s3://BUCKET/PREFIX"
    assert capsys.readouterr().err == f"apiary: {said}\n"
    assert cli.main(["doctor"]) == 1
    assert f"NOT REACHABLE: {said}" in " ".join(capsys.readouterr().out.split())


def test_dbt_builds_on_what_is_switched_on() -> None:
    profile = yaml.safe_load((REPOSITORY / "dbt_project" / "profiles.yml").read_text("utf-8"))["apiary"]
    assert set(profile["outputs"]) == set(Engine)
    assert profile["target"] == "{{ env_var('APIARY_ENGINE', '') or 'duckdb' }}"


def test_the_others_are_extras_and_are_not_imported() -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", LOADS], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.split()
    assert [name for name in loaded if name.startswith(("duckdb_extension", "pyspark", "sqlglot", "psycopg"))] == []
    groups = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["dependency-groups"]
    optional = [package for extra in ("ducklake", "spark") for package in groups[extra]]
    assert not set(optional) & set(groups["warehouse"])
    pinned = next(package for package in groups["warehouse"] if package.startswith("duckdb=="))
    assert all(package.endswith(pinned.removeprefix("duckdb")) for package in groups["ducklake"])
