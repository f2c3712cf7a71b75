"""dbt's commands on another engine, in this process.

Does not belong here: what an engine needs before and after (ducklake_build.py, spark_build.py).
"""

from pathlib import Path

from dbt.cli.main import dbtRunner

from pipelines.engine import Engine
from pipelines.home import ROOT

PROJECT = ROOT / "dbt_project"
PASSED = ("success", "pass", "warn")
Nodes = dict[str, dict[str, object]]
"""State, seconds, message and relation of each node."""


def dbt(engine: Engine, command: str, folder: Path, *arguments: str) -> Nodes:
    """A command of dbt; `folder` is for its files. Raises what dbt raises."""
    options = [
        "--project-dir", str(PROJECT), "--profiles-dir", str(PROJECT), "--target", engine.value,
        "--target-path", str(folder / "target"), "--log-path", str(folder / "logs"),
    ]  # fmt: skip
    result = dbtRunner().invoke([command, *options, *arguments])
    if result.exception is not None:
        raise result.exception
    return {
        found.node.unique_id: {
            "status": str(found.status),
            "seconds": found.execution_time,
            "message": found.message or "",
            "relation": f"{found.node.schema}.{found.node.name}",
        }
        for found in result.result
    }


def build(engine: Engine, folder: Path, select: list[str], *, tests: bool) -> Nodes:
    """Models, and tests, in the order of their dependencies."""
    # A test of several models runs if all of them are chosen.
    chosen = ["--select", *select, "--indirect-selection", "cautious"] if select else []
    left_out = ("seed", "unit_test", *([] if tests else ["test"]))
    return dbt(engine, "build", folder, "--exclude-resource-type", *left_out, *chosen)


def is_built(nodes: Nodes) -> bool:
    """Whether nothing failed."""
    return all(node["status"] in PASSED for node in nodes.values())
