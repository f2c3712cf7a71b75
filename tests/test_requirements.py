"""Every requirement is mapped, and every target of a mapping exists.

Does not belong here: what the tests that are named assert.
"""

import ast
import re
from functools import cache

import yaml

from tests import marts
from tests.requirements import PAGE, ROOT, Line, asked, lines, page

NUMBERS = re.compile(r"Tests? (\d+(?:, \d+)*)\b")


@cache
def columns() -> set[str]:
    """Columns of all marts, as `mart.column`."""
    return {f"{mart}.{column}" for mart, types in marts.types().items() for column in types}


@cache
def settings() -> set[str]:
    """Vars of the dbt project, seeds, and the files of settings."""
    project = yaml.safe_load((ROOT / "dbt_project" / "dbt_project.yml").read_text("utf-8"))
    seeds = {path.stem for path in (ROOT / "dbt_project" / "seeds").glob("*.csv")}
    return set(project["vars"]) | seeds | {path.name for path in (ROOT / "policies").glob("*.yml")}


@cache
def named_in(path: str) -> set[str]:
    file = ROOT / path
    if not path.startswith("tests/") or not file.is_file():
        return set()
    nodes = ast.walk(ast.parse(file.read_text("utf-8")))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


@cache
def numbered() -> dict[str, set[str]]:
    """The delivery tests that a test's docstring says it is, by target."""
    found = {}
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            said = NUMBERS.match(ast.get_docstring(node) or "") if isinstance(node, ast.FunctionDef) else None
            if said:
                target = f"test:{path.relative_to(ROOT).as_posix()}::{node.name}"
                found[target] = {f"DT-{number}" for number in said[1].split(", ")}
    return found


def exists(target: str) -> bool:
    kind, _, name = target.partition(":")
    if kind == "test":
        path, _, test = name.partition("::")
        return test in named_in(path)
    if kind == "setting":
        return name in settings()
    if kind == "reason":
        return len(name) > 10
    return target in columns()


def wrong(line: Line) -> bool:
    """A served line, or a rule, names a test; what is outside gives its reason; every target exists."""
    if not line.test and not line.served_by.startswith(("reason:", "test:")):
        return True
    return not exists(line.served_by) or bool(line.test and not exists(line.test))


def test_every_requirement_is_mapped_once() -> None:
    ids = [line.id for line in lines()]
    assert len(asked()) == 421
    assert sorted(ids) == sorted(asked())


def test_every_target_exists() -> None:
    assert [line for line in lines() if wrong(line)] == []


def test_a_delivery_test_and_its_test_name_each_other() -> None:
    """The tests of the delivery protocol go by numbers: a line names a test, and the test's docstring the number."""
    mapped = [line for line in lines() if line.id.startswith("DT-")]
    assert [line for line in mapped if line.id not in numbered().get(line.test, ())] == []
    assert {number for numbers in numbered().values() for number in numbers} == {line.id for line in mapped}


def test_what_is_in_scope_is_served_or_says_why_not() -> None:
    served = [line for line in lines() if not line.served_by.startswith("reason:")]
    assert len(served) >= 200


def test_a_target_that_is_gone_is_found() -> None:
    line = Line(
        "H-U1", "D", "mart_session_usage.input_tokens", "test:tests/dbt/test_usage.py::test_own_and_subtree", ""
    )
    assert not wrong(line)
    gone = ("mart_session_usage.no_such", "no_such.turns", "setting:no_such", "test:tests/none.py::test_x", "reason:")
    assert all(wrong(line._replace(served_by=target)) for target in gone)
    assert wrong(line._replace(test="test:tests/dbt/test_usage.py::test_no_such"))
    assert wrong(line._replace(test=""))


def test_the_page_is_fresh() -> None:
    assert PAGE.read_text("utf-8") == page(), "run `make contract`"
