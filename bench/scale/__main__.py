"""`make scale`: a simulated fleet through gate, ledger and load, the models on each engine, and marts compared.

`--engines ducklake spark`: which ones are compared with DuckDB; the section of each in the report is of its last run.
`--days N`: how many days of work the fleet has (4 are about 1,500 turns). `--workers 2`: of a standalone cluster that
is started and stopped here; 0 for Spark within one process. `--loads 2`: half the devices arrive when the models were
built already; they are brought up to date then.
`--turns N`: so many turns more, and a history (history.py): the warehouse is that of the program's own job, with a
closed month and an erasure; statements made from each engine's marts, of days and of that month, are compared too.
`--home`: a new folder in which to keep what is made; with `--turns` one that was left may be gone on with.
Does not belong here: the cluster (cluster.py), PostgreSQL (postgres.py), an engine's own part (`<engine>_build.py`).
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path

from bench.scale import cluster, devices, history, inputs, postgres, statements
from bench.scale.compare import BUILD_COUNTERS, Comparison, compare
from bench.scale.dbt_models import PASSED
from pipelines.commands.demo import sign_books
from pipelines.contract.numbers import pluralize
from pipelines.engine import SETTING, Engine
from pipelines.home import ROOT, Home
from pipelines.simulate import fleet
from tests.warehouse import Warehouse

REPORT = ROOT / "bench" / "reports" / "scale.md"
LAST_DAY = date(2026, 10, 31)
TITLES = {Engine.DUCKLAKE: "DuckLake", Engine.SPARK: "Spark"}
HEAD = """\
# The models on other engines and on DuckDB

`make scale`: a simulated fleet. Gate, ledger and load are the same code: on DuckLake they run into it, Spark reads the
tables of the wire as they were admitted, as Parquet. Every column of every row is compared, decimals to the last digit.
`rounded` are rows that differ in the last digits of a sum of seconds alone (DOUBLE). Each section is of the last run of
its engine: `make scale ARGS="--engines ducklake"`.
"""


@dataclass
class OnDuckDB:
    """The warehouse: its file, its tables as they were after each load, and the seconds of each part of the work."""

    path: Path
    inputs: list[Path] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=lambda: {"load": 0.0})


@dataclass(frozen=True)
class Built:
    """What an engine says of itself: seconds by part of the work; state, seconds and message of each model and test."""

    seconds: dict[str, float]
    nodes: dict[str, dict[str, object]]

    @property
    def failed(self) -> dict[str, dict[str, object]]:
        """What did not run, or does not hold."""
        return {name: node for name, node in self.nodes.items() if node["status"] not in PASSED}


def on_duckdb(home: Home, loads: Sequence[Sequence[fleet.DeviceSpec]], select: list[str]) -> OnDuckDB:
    """Devices loaded one group after the other, and all models built at the end."""
    warehouse, done = loaded_on_duckdb(home, loads)
    begun = time.monotonic()
    warehouse.run("--full-refresh", *(["--select", *select] if select else []))
    done.seconds["all models without tests"] = time.monotonic() - begun
    return done


def loaded_on_duckdb(home: Home, loads: Sequence[Sequence[fleet.DeviceSpec]]) -> tuple[Warehouse, OnDuckDB]:
    """The same before any model is built."""
    done = OnDuckDB(home.root / "apiary.duckdb")
    os.environ["APIARY_WAREHOUSE"] = str(done.path)
    warehouse = Warehouse(done.path, home.root / "duckdb-target")
    sign_books(home, tuple(device for arriving in loads for device in arriving), now=datetime.now(UTC))
    warehouse.sign(home.books)
    for number, arriving in enumerate(loads):
        devices.ship(home, arriving)
        begun = time.monotonic()
        warehouse.ingest(home.store_url)
        done.seconds["load"] += time.monotonic() - begun
        done.inputs.append(home.root / "inputs" / str(number))
        done.rows = inputs.export(done.path, done.inputs[-1])
    return warehouse, done


def on_spark(home: Home, tables: list[Path], master: str, select: list[str], *, is_large: bool = False) -> Built:
    """The models and their tests on Spark."""
    return finished(started_on_spark(home, tables, master, select, is_large=is_large), Engine.SPARK, home)


def alone_on_spark(home: Home, tables: Path, models: Sequence[str]) -> Built:
    """These models and nothing else, in one process: what they read lies in `tables`."""
    return finished(started_on_spark(home, [tables], "local[2]", [*models, "--alone"]), Engine.SPARK, home)


def started_on_spark(
    home: Home, tables: list[Path], master: str, select: list[str], *, is_large: bool = False
) -> "subprocess.Popen[bytes]":
    """The same, under way."""
    environment = {
        "SPARK_LOCAL_IP": "127.0.0.1",
        "PYSPARK_PYTHON": sys.executable,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "dbt_project" / "spark")]),
    }
    arguments = [*tables, "--master", master, *(["--large"] if is_large else []), "--select", *select]
    return started(Engine.SPARK, home, arguments, environment)


def on_ducklake(
    home: Home, lake: dict[str, str], tables: list[Path], select: list[str], *, made: history.History | None = None
) -> Built:
    """Load, models and their tests on a DuckLake: an empty one, or one that has the warehouse of a history."""
    if made is not None:
        move_into_lake(made.before, lake)
        arguments = [home.store_url, home.books, "--history", made.inputs, "--select", *select]
    else:
        arguments = [home.store_url, home.books, *tables, "--select", *select]
    return finished(started(Engine.DUCKLAKE, home, arguments, lake), Engine.DUCKLAKE, home)


def started(
    engine: Engine, home: Home, arguments: Sequence[str | Path], environment: dict[str, str]
) -> "subprocess.Popen[bytes]":
    """The models on an engine, in a process of its own that writes `<engine>/build.log`."""
    outputs = marts_of(home, engine)
    outputs.mkdir(parents=True, exist_ok=True)
    with (outputs.parent / "build.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", f"bench.scale.{engine}_build", outputs, *arguments],
            env=os.environ | environment | {SETTING: engine, "DO_NOT_TRACK": "1"}, stdout=log, stderr=log, cwd=ROOT,
        )  # fmt: skip


def finished(process: "subprocess.Popen[bytes]", engine: Engine, home: Home) -> Built:
    """What it says at its end."""
    process.wait()
    results = marts_of(home, engine) / "results.json"
    if not results.exists():
        raise SystemExit(f"{engine} did not come to an end: see {results.parents[1] / 'build.log'}")
    said = json.loads(results.read_text("utf-8"))
    return Built(said["seconds"], said["nodes"])


def marts_of(home: Home, engine: Engine) -> Path:
    """Where an engine writes its marts."""
    return home.root / engine / "marts"


def seconds_of(nodes: dict[str, dict[str, object]], mart: str) -> str:
    """How long the mart's model took on the engine."""
    found = nodes.get(f"model.apiary.{mart}")
    return f"{found['seconds']:.1f}" if found else "-"


@dataclass(frozen=True)
class Outcome:
    """An engine: where and what it built, how its marts differ from DuckDB's, and the statements made from them."""

    engine: Engine
    place: str
    built: Built
    marts: list[Comparison]
    statements: int = 0
    """Files of statements that were compared."""
    differing: Sequence[str] = ()
    """Those of them that are not the same."""

    @property
    def is_right(self) -> bool:
        """Whether everything ran, and all marts and statements are DuckDB's."""
        return not self.built.failed and not self.differing and all(mart.is_equal for mart in self.marts)

    def section(self, duckdb: OnDuckDB) -> str:
        """The engine beside DuckDB, in Markdown."""
        built, marts = self.built, self.marts
        turns = duckdb.rows["wire.llm_turns"] + duckdb.rows["wire.node_steps"]
        tests = [name for name in built.nodes if not name.startswith("model.")]
        lines = [
            f"{self.place}, {os.cpu_count()} cores, {os.getloadavg()[0]:.1f} programs wanted them at last; {turns:,}"
            f" turns and steps in {pluralize(len(duckdb.inputs), 'load')}.", "",
            f"- DuckDB: {listed(duckdb.seconds)}.",
            f"- {TITLES[self.engine]}: {listed(built.seconds)}; build is models and tests"
            f"{', once after each load' if len(duckdb.inputs) > 1 else ''}.",
            f"- Marts: {sum(mart.is_equal for mart in marts)} of {len(marts)} equal,"
            f" {sum(mart.missing + mart.surplus for mart in marts)} differing rows of"
            f" {sum(mart.rows for mart in marts):,}.",
            *([f"- Statements of days and months: {self.statements - len(self.differing)} of {self.statements} files"
               f" equal{''.join(f', not {name}' for name in self.differing)}."] if self.statements else []),
            f"- dbt tests: {len([name for name in tests if name not in built.failed])} of {len(tests)} passed.", "",
            f"| mart | rows | missing | surplus | rounded | seconds on {TITLES[self.engine]} | columns |",
            "|---|---|---|---|---|---|---|",
            *(
                f"| {mart.mart} | {mart.rows:,} | {mart.missing} | {mart.surplus} | {mart.rounded}"
                f" | {seconds_of(built.nodes, mart.mart)}"
                f" | {', '.join(mart.columns) if mart.is_there else 'not built'} |"
                for mart in marts
            ),
        ]  # fmt: skip
        if built.failed:
            lines += ["", "### What did not run", ""]
            lines += [f"- `{name}`: {n['status']}. {reason(str(n['message']))}" for name, n in built.failed.items()]
        return "\n".join(lines) + "\n"


def listed(seconds: dict[str, float]) -> str:
    """The parts of a work and how long each took."""
    return ", ".join(f"{name} {spent:.0f} s" for name, spent in seconds.items())


def write_report(path: Path, sections: dict[str, str]) -> None:
    """Put the sections of this run in the place of those of the same engines; the others stay as they were measured."""
    before = path.read_text("utf-8").split("\n## ")[1:] if path.exists() else []
    kept = {title: text.strip() + "\n" for title, _, text in (part.partition("\n") for part in before)}
    all_of_them = sorted((kept | sections).items())
    path.write_text(HEAD + "".join(f"\n## {title}\n\n{text}" for title, text in all_of_them), "utf-8")


def reason(message: str) -> str:
    """The first line of an error that says something, short."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return next((line for line in lines if line.startswith("[")), lines[0] if lines else "")[:200]


@contextmanager
def place_for(named: Path | None) -> Iterator[Path]:
    """The folder named, or one that is gone afterwards."""
    if named is not None:
        if named.exists() and not (named / history.STEPS).exists():
            raise SystemExit(f"{named} is there already: name a new folder")
        named.mkdir(parents=True, exist_ok=True)
        yield named.absolute()
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def run(
    home: Home, *, days: int, turns: int, workers: Sequence[int], loads: int, select: list[str],
    engines: Collection[Engine],
) -> Iterator[tuple[str, str, bool]]:  # fmt: skip
    """The whole comparison: title and text of each section of the report, and whether all was as on DuckDB."""
    if turns:
        made = history.make(home, turns)
        duckdb = OnDuckDB(home.warehouse, [made.inputs], made.rows, made.seconds)
    else:
        made, specs = None, fleet.demo_fleet(last_day=LAST_DAY, days=days)
        duckdb = on_duckdb(home, [specs[number::loads] for number in range(loads)], select)
    suffix = f", {turns:,} turns with a history" if turns else ""
    if Engine.DUCKLAKE in engines:
        for left in (home.root / "postgres", home.root / Engine.DUCKLAKE):
            shutil.rmtree(left, ignore_errors=True)
        with postgres.running(home.root / "postgres") as address:
            lake = postgres.new_lake(address, "lake", home.root / Engine.DUCKLAKE / "data")
            built = on_ducklake(home, lake, duckdb.inputs, select, made=made)
        place = "Tables in a folder, a catalog in PostgreSQL, one process"
        found = outcome(Engine.DUCKLAKE, place, home, duckdb, built, made=made)
        yield f"{TITLES[Engine.DUCKLAKE]}{suffix}", found.section(duckdb), found.is_right
    for number in workers if Engine.SPARK in engines else ():
        named = pluralize(number, "worker")
        place = f"Spark 4.3.0 on {f'a standalone cluster of {named}' if number else 'one process'}"
        shutil.rmtree(home.root / Engine.SPARK, ignore_errors=True)
        memory = {"memory": "3g"} if turns else {}
        with cluster.running(number, home.root / "cluster", **memory) if number else nullcontext("local[2]") as master:
            built = on_spark(home, duckdb.inputs, master, select, is_large=turns > 0)
        found = outcome(Engine.SPARK, place, home, duckdb, built, made=made)
        title = f"{TITLES[Engine.SPARK]}{f', {named}' if turns or len(workers) > 1 else ''}{suffix}"
        yield title, found.section(duckdb), found.is_right


def move_into_lake(warehouse: Path, lake: dict[str, str]) -> None:
    """A warehouse of DuckDB copied into an empty DuckLake, by the command that is for it."""
    command = [sys.executable, "-m", "pipelines.warehouse.ducklake_copy", "into-lake", str(warehouse)]
    subprocess.run(command, env=os.environ | lake, check=True, cwd=ROOT)


def outcome(
    engine: Engine, place: str, home: Home, duckdb: OnDuckDB, built: Built, *, made: history.History | None = None
) -> Outcome:
    """An engine's marts beside DuckDB's, and the statements that are made from them."""
    is_incremental = made is not None or len(duckdb.inputs) > 1
    marts = compare(duckdb.path, marts_of(home, engine), but=BUILD_COUNTERS if is_incremental else ())
    if made is None:
        return Outcome(engine, place, built, marts)
    now = datetime.now(UTC)
    folder = home.root / engine / "statements"
    shutil.rmtree(folder, ignore_errors=True)
    mine, theirs = Home(folder / "mine"), Home(folder / "theirs")
    for copy in (mine, theirs):  # of the same name: views name the catalog, which is the file's
        copy.warehouse.parent.mkdir(parents=True)
        shutil.copy(duckdb.path, copy.warehouse)
    statements.on_marts(theirs.warehouse, marts_of(home, engine))
    files = [
        statements.make(copy.warehouse, home, copy.exports, months=history.MONTHS, as_of=now) for copy in (mine, theirs)
    ]
    return Outcome(engine, place, built, marts, len(files[0]), statements.differing(*files))


def missing(engine: Engine) -> str | None:
    """What an engine lacks on this machine."""
    if engine is Engine.SPARK:
        return cluster.missing()
    return postgres.missing()


def main() -> int:
    """Compare, write the report; 1 if a mart differs or is missing, 2 if none of the engines is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engines", nargs="+", type=Engine, choices=list(TITLES), default=list(TITLES))
    parser.add_argument("--days", type=int, default=4)
    parser.add_argument("--turns", type=int, default=0)
    parser.add_argument("--workers", type=int, nargs="+", default=[2])
    parser.add_argument("--loads", type=int, choices=(1, 2), default=1)
    parser.add_argument("--home", type=Path)
    parser.add_argument("--select", nargs="*", default=[])
    parser.add_argument("--report", type=Path, default=REPORT)
    options = parser.parse_args()
    lacking = {engine: said for engine in options.engines if (said := missing(engine))}
    for said in lacking.values():
        print(said, file=sys.stderr)
    engines = [engine for engine in options.engines if engine not in lacking]
    if not engines:
        return 2
    is_right = True
    with place_for(options.home) as folder:
        for title, text, right in run(
            Home(folder), days=options.days, turns=options.turns, workers=options.workers, loads=options.loads,
            select=options.select, engines=engines,
        ):  # fmt: skip
            write_report(options.report, {title: text})
            print(f"## {title}\n\n{text}", flush=True)
            is_right = is_right and right
    return int(not is_right)


if __name__ == "__main__":
    raise SystemExit(main())
