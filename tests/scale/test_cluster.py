"""What is said where Spark cannot run.

Does not belong here: what runs on it (test_small.py, test_marts.py).
"""

from pathlib import Path

import pytest

from bench.scale import cluster


@pytest.mark.parametrize(
    ("version", "is_there"), [("1.8.0_412", False), ("11.0.23", False), ("17.0.15", True), ("25-ea", True)]
)
def test_java_is_there_from_a_version_on(
    version: str, is_there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert "skipped: Spark needs Java 17" in str(cluster.missing())
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2025-04-15' >&2\n")
    java.chmod(0o755)
    assert (cluster.missing() is None) == is_there
