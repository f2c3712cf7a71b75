"""The dbt project of a home that another installation of the program has used. Does not belong here: its models."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from dbt.cli.main import dbtRunner

from pipelines.defs import dbt_project


def project(folder: Path) -> Path:
    """A project of one seed."""
    (folder / "seeds").mkdir(parents=True)
    (folder / "seeds" / "kinds.csv").write_text("kind\na\n")
    (folder / "dbt_project.yml").write_text("name: small\nprofile: small\n")
    (folder / "profiles.yml").write_text("small: {target: x, outputs: {x: {type: duckdb, path: ':memory:'}}}\n")
    return folder


def seeded(project: Path, target: Path) -> bool:
    places = ("--project-dir", project, "--profiles-dir", project, "--target-path", target, "--log-path", target)
    return dbtRunner().invoke(["--quiet", "--log-level-file=none", "seed", *map(str, places)]).success


def test_a_home_is_used_by_a_program_that_was_installed_elsewhere(tmp_path: Path) -> None:
    target = tmp_path / "dbt" / "trial"
    old, new = project(tmp_path / "a" / "dbt_project"), project(tmp_path / "b" / "dbt_project")
    assert seeded(old, target)
    shutil.rmtree(old)
    assert not seeded(new, target), "dbt looks for the seeds where they were"
    dbt_project.forget_moved(tmp_path / "dbt", new)
    assert seeded(new, target)
    before = (target / "partial_parse.msgpack").stat().st_ino
    dbt_project.forget_moved(tmp_path / "dbt", new)
    assert (target / "partial_parse.msgpack").stat().st_ino == before, "what was parsed here is kept"


def test_it_is_forgotten_before_the_project_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APIARY_HOME", str(tmp_path))
    parsed, made = tmp_path / "dbt" / "partial_parse.msgpack", tmp_path / "manifest.json"
    parsed.parent.mkdir()
    for path in (parsed, made):
        path.touch()
    up_to_date = SimpleNamespace(project_dir=dbt_project.PROJECT.project_dir, manifest_path=made)
    monkeypatch.setattr(dbt_project, "PROJECT", up_to_date)
    assert dbt_project.manifest() == made
    assert not parsed.exists()
