"""Failpoints: the harness knows each one, each stands in one place, and no code of ours arms them.

Does not belong here: dying at them (test_torture.py).
"""

import ast
from collections import Counter
from pathlib import Path

import pytest

from bench.torture import points
from pipelines import failpoints

PACKAGE = Path(failpoints.__file__).parent


def passed() -> list[str]:
    """The names that the package passes, as often as they stand there."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "fp":
                (name,) = node.args
                assert isinstance(name, ast.Constant), f"{path.name}: a failpoint's name is written out"
                found.append(name.value)
    return found


def test_the_harness_knows_every_failpoint() -> None:
    assert Counter(passed()) == Counter(points.ALL)
    assert len(points.ALL) >= 25


def test_no_code_of_ours_arms_a_failpoint() -> None:
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text("utf-8")
        if path.name != "failpoints.py":
            assert "failpoints.hook" not in text, path
            assert "import failpoints" not in text, path
    assert failpoints.hook is None


def test_a_failpoint_does_nothing_until_a_test_arms_it(monkeypatch: pytest.MonkeyPatch) -> None:
    failpoints.fp("cut.assigned")
    seen: list[str] = []
    monkeypatch.setattr(failpoints, "hook", seen.append)
    failpoints.fp("cut.assigned")
    assert seen == ["cut.assigned"]
