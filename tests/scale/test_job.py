"""The whole job on a DuckLake, killed in the middle and started again, makes what it makes on DuckDB's file.

The same landing, books and day; compared is what people get: published marts and statements.
Does not belong here: loaders at once (test_ducklake.py), models without the job (test_marts.py).
"""

import os
import shutil
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest

from bench.scale import devices, postgres, statements
from bench.scale.compare import compare
from pipelines.commands.demo import sign_books
from pipelines.engine import SETTING, Engine
from pipelines.home import Home
from pipelines.simulate import fleet
from pipelines.store import open_store
from pipelines.warehouse import ducklake, suppression
from tests.end_to_end.driving import PROGRAM, apiary

REPOSITORY = Path(__file__).resolve().parents[2]
SECONDS = 1_800.0
DEVICES = 3
COUNT_MARTS = "SELECT count(*) FROM duckdb_tables() WHERE database_name = 'lake' AND schema_name = 'marts'"
pytestmark = pytest.mark.scale


def run(home: Home, environment: dict[str, str], *arguments: str, check: bool = True) -> str:
    done = apiary(home.root, *arguments, environment={"PYTHONPATH": str(REPOSITORY)} | environment, check=check)
    return done.stdout + done.stderr


def started(home: Home, environment: dict[str, str]) -> "subprocess.Popen[bytes]":
    """The job, beside what the test goes on with."""
    named = {"PYTHONPATH": str(REPOSITORY), "APIARY_HOME": str(home.root)} | environment
    with (home.root / "run.log").open("wb") as log:
        return subprocess.Popen([*PROGRAM, "run"], env=os.environ | named, stdout=log, stderr=log, cwd=REPOSITORY)


def kill_in_the_middle(home: Home, environment: dict[str, str], lake: dict[str, str]) -> None:
    """Begin the job, and kill it when it has built some of the marts; its dbt is left alone."""
    process = started(home, environment)
    end, marts = time.monotonic() + SECONDS, 0
    while marts < 5:
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(1)
        with ducklake.connect(lake) as reader:
            (marts,) = reader.execute(COUNT_MARTS).fetchone() or (0,)
    process.kill()
    process.wait()
    assert not home.published.exists()


def differing(one: Home, other: Home, folder: Path) -> list[str]:
    """Published marts of which a row is in one alone; every column but a DOUBLE's last digits."""
    with duckdb.connect(str(folder / "one.duckdb")) as connection:
        connection.execute("CREATE SCHEMA marts")
        for path in sorted((one.published / "current").glob("*.parquet")):
            connection.execute(f"CREATE VIEW marts.{path.stem} AS FROM read_parquet('{path.resolve()}')")
    for path in (other.published / "current").glob("*.parquet"):
        place = folder / "compared" / path.stem
        place.mkdir(parents=True)
        shutil.copy(path, place / "rows.parquet")
    found = compare(folder / "one.duckdb", folder / "compared")
    assert len(found) > 60
    assert sum(mart.rows for mart in found) > 1_000
    return [f"{mart}" for mart in found if not mart.is_equal]


def test_the_whole_job_is_the_same(address: str, tmp_path: Path) -> None:
    source, file, other = (Home(tmp_path / name) for name in ("source", "file", "other"))
    specs = fleet.demo_fleet(last_day=datetime.now(UTC).date() - timedelta(days=2), days=1)[:DEVICES]
    sign_books(source, specs, now=datetime.now(UTC))
    devices.ship(source, specs)
    shared = {"APIARY_STORE": source.store_url}
    for home in (file, other):
        home.root.mkdir(mode=0o700)
        shutil.copytree(source.books, home.books)
        shutil.copytree(source.operator_actions.parent, home.operator_actions.parent)
    lake = postgres.new_lake(address, "job", tmp_path / "data")
    on_lake = shared | lake | {SETTING: Engine.DUCKLAKE}

    alone = started(file, shared)
    kill_in_the_middle(other, on_lake, lake)
    run(other, on_lake, "run")
    assert alone.wait() == 0, (file.root / "run.log").read_text("utf-8")
    assert not other.warehouse.exists()
    assert differing(file, other, tmp_path) == []
    found = dict(statements.files(other.exports))
    assert len(found) > 5
    assert statements.differing(found, dict(statements.files(file.exports))) == []

    with ducklake.connect(lake) as reader:
        before = ducklake.snapshot(reader), (other.published / "current").resolve()
        assert "nothing has changed" in run(other, on_lake, "run")
        assert (ducklake.snapshot(reader), (other.published / "current").resolve()) == before

    # Nothing is erased there, and nobody is told that it was.
    store = open_store(source.store_url)
    tenant = specs[0].tenant
    assert "runs on duckdb alone" in run(other, on_lake, "erase", "--tenant", tenant, "--yes", check=False)
    assert not suppression.load(store).listed
