"""The device part is light: it works in a base install, and it is there at once."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

from tests.device.driving import append, dump, granted, queen_folder, turn

ROOT = Path(__file__).parents[2]
HEAVY = (
    "dagster",
    "duckdb",
    "dbt",
    "polars",
    "pandas",
    "great_expectations",
    "sqlalchemy",
    "boto3",
    "botocore",
    "numpy",
)
BLOCKED = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in %r:
            raise ImportError(f"{name} is not in a base install")
sys.meta_path.insert(0, Blocker())
"""


def run(program: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_shipping_needs_nothing_of_the_warehouse(tmp_path: Path) -> None:
    home = tmp_path / "hive"
    append(queen_folder(home) / "events.jsonl", dump(turn(1)))
    made = granted(tmp_path / "apiary", home)
    program = BLOCKED % (HEAVY,) + (
        "from pathlib import Path; from pipelines.device.ship import ship\n"
        "from pipelines.device.preview import preview\n"
        "from pipelines.device import grant; from pipelines.home import Home\n"
        "home = Home(Path(sys.argv[1])); preview(home, [Path(sys.argv[2])])\n"
        "print(ship(home, [Path(sys.argv[2])]).batches)"
    )
    assert run(program, str(made.home.root), str(home)) == "1\n"
    assert len(made.delivered("llm_turns")) == 1


def test_its_commands_import_nothing_of_the_warehouse_where_it_is_installed(tmp_path: Path) -> None:
    """pyarrow imports pandas inside `pa.array` where it finds it."""
    home = tmp_path / "hive"
    append(queen_folder(home) / "events.jsonl", dump(turn(1)))
    made = granted(tmp_path / "apiary", home)
    command = [sys.executable, "-X", "importtime", "-m", "pipelines.cli", "device", "ship", "--home", str(home)]
    done = subprocess.run(
        command, env=os.environ | {"APIARY_HOME": str(made.home.root)}, capture_output=True, text=True, cwd=ROOT,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(made.delivered("llm_turns")) == 1
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "pyarrow.lib" in imported
    # Parts of packages: an attempt that finds none is told as well.
    heavy = tuple(f"{name}." for name in HEAVY)
    assert [name for name in sorted(imported) if name.startswith(heavy)] == []


def test_importing_it_loads_nothing_of_the_warehouse() -> None:
    program = (
        "import pipelines.device.ship, pipelines.device.preview, json, sys; print(json.dumps(sorted(sys.modules)))"
    )
    loaded = {name.partition(".")[0] for name in json.loads(run(program))}
    heavy = set(HEAVY) - {"numpy"}  # pyarrow loads numpy where there is one
    assert not loaded & heavy
    parts = {".".join(name.split(".")[:2]) for name in json.loads(run(program)) if name.startswith("pipelines.")}
    ground = {f"pipelines.{name}" for name in ("store", "home", "errors", "failpoints")}
    assert parts <= {"pipelines.device", "pipelines.contract", *ground}


def test_importing_it_costs_little_more_than_the_library_that_writes_its_files() -> None:
    """In processor time and turn by turn: what slows the machine down slows both."""

    def spent(program: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run(program)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    pairs = [(spent("import pipelines.device.ship"), spent("import pyarrow.parquet")) for _ in range(5)]
    taken, floor = (min(times) for times in zip(*pairs, strict=True))
    assert taken <= 2.5 * floor, f"{taken:.2f} s, of which {floor:.2f} s are pyarrow's"
