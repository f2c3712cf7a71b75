"""The dbt project of a home that another installation of the program has used. Does not belong here: its models."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.defs.dbt_project import forget_moved, manifest


def project(folder: Path) -> Path:
    """A project of one seed."""
    (folder / "seeds").mkdir(parents=True)
    (folder / "seeds" / "kinds.csv").write_text("kind\na\n")
    (folder / "dbt_project.yml").write_text("name: small\nprofile: small\n")
    (folder / "profiles.yml").write_text("small: {target: x, outputs: {x: {type: duckdb, path: ':memory:'}}}\n")
    return folder


def seeded(project: Path, target: Path) -> bool:
    command = [
        str(Path(sys.executable).with_name("dbt")), "--quiet", "seed", "--project-dir", str(project),
        "--profiles-dir", str(project), "--target-path", str(target), "--log-path", str(target),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_a_home_is_used_by_a_program_that_was_installed_elsewhere(tmp_path: Path) -> None:
    target = tmp_path / "dbt" / "trial"
    old, new = project(tmp_path / "a" / "dbt_project"), project(tmp_path / "b" / "dbt_project")
    assert seeded(old, target)
    shutil.rmtree(old)
    assert not seeded(new, target), "dbt looks for the seeds where they were"
    forget_moved(tmp_path / "dbt", new)
    assert seeded(new, target)
    before = (target / "partial_parse.msgpack").stat().st_ino
    forget_moved(tmp_path / "dbt", new)
    assert (target / "partial_parse.msgpack").stat().st_ino == before, "what was parsed here is kept"


def test_it_is_forgotten_before_the_project_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APIARY_HOME", str(tmp_path))
    parsed = tmp_path / "dbt" / "partial_parse.msgpack"
    parsed.parent.mkdir()
    parsed.touch()
    manifest()
    assert not parsed.exists()
