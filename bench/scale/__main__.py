"""`make scale`: a simulated fleet through gate, ledger and load, the models on each engine, and marts compared.

`--engines ducklake spark`: which ones are compared with DuckDB; the section of each in the report is of its last run.
`--days N`: how many days of work the fleet has (4 are about 1,500 turns). `--workers 2`: of a standalone cluster that
is started and stopped here; 0 for Spark within one process. `--loads 2`: half the devices arrive when the models were
built already; they are brought up to date then. `--home`: a new folder in which to keep what is made.
Does not belong here: the cluster (cluster.py), PostgreSQL (postgres.py), an engine's own part (`<engine>_build.py`).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path

from bench.scale import cluster, inputs, postgres
from bench.scale.compare import BUILD_COUNTERS, Comparison, compare
from bench.scale.dbt_models import PASSED
from pipelines.commands.demo import sign_books
from pipelines.contract.numbers import pluralize
from pipelines.engine import SETTING, Engine
from pipelines.home import ROOT, Home
from pipelines.simulate import fleet, homes
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


def ship(home: Home, devices: Sequence[fleet.DeviceSpec]) -> None:
    """Every device's home written, read and shipped to the store."""
    from pipelines.device import enrolment, grant
    from pipelines.device import ship as shipping

    for device in devices:
        mine = Home(home.devices / device.name)
        agents = [mine.root / "hive"]
        homes.write_home(agents[0], device.home)
        if device.other is not None:
            agents.append(mine.root / device.other.folder)
            device.other.write(agents[1])
        enrolment.enroll(
            mine, tenant=device.tenant, user=device.user, region=device.region, timezone=device.home.timezone,
            store=home.store_url, tenant_key=None, now=datetime.now(UTC),
        )  # fmt: skip
        grant.grant(mine, agents, history="include")
        shipping.ship(mine, agents, store_url=home.store_url)


@dataclass
class OnDuckDB:
    """The warehouse: its file, its tables as they were after each load, and how long it took."""

    warehouse: Warehouse
    inputs: list[Path] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    load_seconds: float = 0.0
    build_seconds: float = 0.0

    @property
    def path(self) -> Path:
        """The file."""
        return self.warehouse.path


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
    done = loaded_on_duckdb(home, loads)
    begun = time.monotonic()
    done.warehouse.run("--full-refresh", *(["--select", *select] if select else []))
    done.build_seconds = time.monotonic() - begun
    return done


def loaded_on_duckdb(home: Home, loads: Sequence[Sequence[fleet.DeviceSpec]]) -> OnDuckDB:
    """The same before any model is built."""
    file = home.root / "apiary.duckdb"
    os.environ["APIARY_WAREHOUSE"] = str(file)
    warehouse = Warehouse(file, home.root / "duckdb-target")
    done = OnDuckDB(warehouse)
    sign_books(home, tuple(device for devices in loads for device in devices), now=datetime.now(UTC))
    warehouse.sign(home.books)
    for number, devices in enumerate(loads):
        ship(home, devices)
        begun = time.monotonic()
        warehouse.ingest(home.store_url)
        done.load_seconds += time.monotonic() - begun
        done.inputs.append(home.root / "inputs" / str(number))
        done.rows = inputs.export(file, done.inputs[-1])
    return done


def on_spark(home: Home, tables: list[Path], master: str, select: list[str]) -> Built:
    """The models and their tests on Spark."""
    return finished(started_on_spark(home, tables, master, select), Engine.SPARK, home)


def alone_on_spark(home: Home, tables: Path, models: Sequence[str]) -> Built:
    """These models and nothing else, in one process: what they read lies in `tables`."""
    return finished(started_on_spark(home, [tables], "local[2]", [*models, "--alone"]), Engine.SPARK, home)


def started_on_spark(home: Home, tables: list[Path], master: str, select: list[str]) -> "subprocess.Popen[bytes]":
    """The same, under way."""
    environment = {
        "SPARK_LOCAL_IP": "127.0.0.1",
        "PYSPARK_PYTHON": sys.executable,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "dbt_project" / "spark")]),
    }
    arguments = [*tables, "--master", master, "--select", *select]
    return started(Engine.SPARK, home, arguments, environment)


def on_ducklake(home: Home, lake: dict[str, str], tables: list[Path], select: list[str]) -> Built:
    """Load, models and their tests on a DuckLake."""
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


def section(engine: Engine, place: str, duckdb: OnDuckDB, built: Built, marts: list[Comparison]) -> str:
    """One engine beside DuckDB, in Markdown."""
    turns = duckdb.rows["wire.llm_turns"] + duckdb.rows["wire.node_steps"]
    tests = [name for name in built.nodes if not name.startswith("model.")]
    parts = ", ".join(f"{name} {spent:.0f} s" for name, spent in built.seconds.items())
    lines = [
        f"{place}, {os.cpu_count()} cores, {os.getloadavg()[0]:.1f} programs wanted them at last; {turns:,} turns and"
        f" steps in {pluralize(len(duckdb.inputs), 'load')}.", "",
        f"- DuckDB: load {duckdb.load_seconds:.0f} s, all models {duckdb.build_seconds:.0f} s, without tests.",
        f"- {TITLES[engine]}: {parts}; build is models and tests"
        f"{', once after each load' if len(duckdb.inputs) > 1 else ''}.",
        f"- Marts: {sum(mart.is_equal for mart in marts)} of {len(marts)} equal,"
        f" {sum(mart.missing + mart.surplus for mart in marts)} differing rows.",
        f"- dbt tests: {len([name for name in tests if name not in built.failed])} of {len(tests)} passed.", "",
        f"| mart | rows | missing | surplus | rounded | seconds on {TITLES[engine]} | columns |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {mart.mart} | {mart.rows:,} | {mart.missing} | {mart.surplus} | {mart.rounded}"
            f" | {seconds_of(built.nodes, mart.mart)} | {', '.join(mart.columns) if mart.is_there else 'not built'} |"
            for mart in marts
        ),
    ]  # fmt: skip
    if built.failed:
        lines += ["", "### What did not run", ""]
        lines += [f"- `{name}`: {n['status']}. {reason(str(n['message']))}" for name, n in built.failed.items()]
    return "\n".join(lines) + "\n"


def write_report(path: Path, sections: dict[str, str]) -> None:
    """Put the sections of this run in the place of those of the same engines; the others stay as they were measured."""
    before = path.read_text("utf-8").split("\n## ")[1:] if path.exists() else []
    kept = {title: text.strip() + "\n" for title, _, text in (part.partition("\n") for part in before)}
    listed = (kept | sections).items()
    path.write_text(HEAD + "".join(f"\n## {title}\n\n{text}" for title, text in sorted(listed)), "utf-8")


def reason(message: str) -> str:
    """The first line of an error that says something, short."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return next((line for line in lines if line.startswith("[")), lines[0] if lines else "")[:200]


@contextmanager
def place_for(named: Path | None) -> Iterator[Path]:
    """The folder named, or one that is gone afterwards."""
    if named is not None:
        if named.exists():
            raise SystemExit(f"{named} is there already: name a new folder")
        named.mkdir(parents=True)
        yield named.absolute()
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@dataclass(frozen=True)
class Outcome:
    """An engine: what it built, how its marts differ from DuckDB's, and the section of the report."""

    built: Built
    marts: list[Comparison]
    text: str

    @property
    def is_right(self) -> bool:
        """Whether everything ran and all marts are DuckDB's."""
        return not self.built.failed and all(mart.is_equal for mart in self.marts)


def run(
    home: Home, *, days: int, workers: int, loads: int = 1, select: list[str], engines: Collection[Engine]
) -> dict[Engine, Outcome]:
    """The whole comparison, by engine."""
    devices = fleet.demo_fleet(last_day=LAST_DAY, days=days)
    duckdb = on_duckdb(home, [devices[number::loads] for number in range(loads)], select)
    done = {}
    if Engine.DUCKLAKE in engines:
        with postgres.running(home.root / "postgres") as address:
            lake = postgres.new_lake(address, "lake", home.root / Engine.DUCKLAKE / "data")
            built = on_ducklake(home, lake, duckdb.inputs, select)
        place = "Tables in a folder, a catalog in PostgreSQL, one process"
        done[Engine.DUCKLAKE] = outcome(Engine.DUCKLAKE, place, home, duckdb, built)
    if Engine.SPARK in engines:
        place = f"Spark 4.3.0 on {f'a standalone cluster of {workers} workers' if workers else 'one process'}"
        with cluster.running(workers, home.root / "cluster") if workers else nullcontext("local[2]") as master:
            built = on_spark(home, duckdb.inputs, master, select)
        done[Engine.SPARK] = outcome(Engine.SPARK, place, home, duckdb, built)
    return done


def outcome(engine: Engine, place: str, home: Home, duckdb: OnDuckDB, built: Built) -> Outcome:
    """An engine's marts beside DuckDB's."""
    marts = compare(duckdb.path, marts_of(home, engine), but=BUILD_COUNTERS if len(duckdb.inputs) > 1 else ())
    return Outcome(built, marts, section(engine, place, duckdb, built, marts))


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
    parser.add_argument("--workers", type=int, default=2)
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
    with place_for(options.home) as folder:
        done = run(
            Home(folder), days=options.days, workers=options.workers, loads=options.loads, select=options.select,
            engines=engines,
        )  # fmt: skip
    write_report(options.report, {TITLES[engine]: found.text for engine, found in done.items()})
    for engine, found in done.items():
        print(f"## {TITLES[engine]}\n\n{found.text}")
    return int(not all(found.is_right for found in done.values()))


if __name__ == "__main__":
    raise SystemExit(main())
