"""`make scale`: a simulated fleet through gate, ledger and load, the models on DuckDB and on Spark, and marts compared.

`--days N`: how many days of work the fleet has (4 are about 1,500 turns). `--workers 2`: of a standalone cluster that
is started and stopped here; 0 for Spark within one process. `--loads 2`: half the devices arrive when the models were
built on Spark already, which then brings them up to date. `--home`: a new folder in which to keep what is made.
Does not belong here: the cluster (cluster.py), the models on Spark (spark_build.py).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path

from bench.scale import cluster, inputs
from bench.scale.compare import BUILD_COUNTERS, Comparison, compare
from pipelines.commands.demo import sign_books
from pipelines.contract.numbers import pluralize
from pipelines.home import ROOT, Home
from pipelines.simulate import fleet, homes
from tests.warehouse import Warehouse

REPORT = ROOT / "bench" / "reports" / "scale.md"
LAST_DAY = date(2026, 10, 31)
PASSED = ("success", "pass", "warn")


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

    path: Path
    inputs: list[Path] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    load_seconds: float = 0.0
    build_seconds: float = 0.0


def on_duckdb(home: Home, loads: Sequence[Sequence[fleet.DeviceSpec]], select: list[str]) -> OnDuckDB:
    """Devices loaded one group after the other, and all models built at the end."""
    done = OnDuckDB(home.root / "apiary.duckdb")
    os.environ["APIARY_WAREHOUSE"] = str(done.path)
    warehouse = Warehouse(done.path, home.root / "duckdb-target")
    sign_books(home, tuple(device for devices in loads for device in devices), now=datetime.now(UTC))
    warehouse.sign(home.books)
    for number, devices in enumerate(loads):
        ship(home, devices)
        begun = time.monotonic()
        warehouse.ingest(home.store_url)
        done.load_seconds += time.monotonic() - begun
        done.inputs.append(home.root / "spark" / f"inputs-{number}")
        done.rows = inputs.export(done.path, done.inputs[-1])
    begun = time.monotonic()
    warehouse.run("--full-refresh", *(["--select", *select] if select else []))
    done.build_seconds = time.monotonic() - begun
    return done


def on_spark(home: Home, tables: list[Path], master: str, select: list[str]) -> dict[str, object]:
    """The models and their tests on Spark; what `spark_build` says of them."""
    outputs = home.root / "spark" / "marts"
    outputs.mkdir(parents=True)
    environment = os.environ | {
        "APIARY_ENGINE": "spark", "SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": sys.executable,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "dbt_project" / "spark")]),
        "DO_NOT_TRACK": "1",
    }  # fmt: skip
    with (home.root / "spark" / "build.log").open("wb") as log:
        subprocess.run(
            [
                sys.executable, "-m", "bench.scale.spark_build", outputs, *tables, "--master", master,
                "--select", *select,
            ],
            env=environment, stdout=log, stderr=log, check=False, cwd=ROOT,
        )  # fmt: skip
    results = outputs / "results.json"
    if not results.exists():
        raise SystemExit(f"Spark did not come to an end: see {home.root / 'spark' / 'build.log'}")
    said: dict[str, object] = json.loads(results.read_text("utf-8"))
    return said


def seconds_of(nodes: dict[str, dict[str, object]], mart: str) -> str:
    """How long the mart's model took on Spark."""
    found = nodes.get(f"model.apiary.{mart}")
    return f"{found['seconds']:.1f}" if found else "-"


def report(workers: int, duckdb: OnDuckDB, spark: dict[str, object], marts: list[Comparison]) -> str:
    """The comparison in Markdown."""
    turns = duckdb.rows["wire.llm_turns"] + duckdb.rows["wire.node_steps"]
    nodes: dict[str, dict[str, object]] = spark["nodes"]  # type: ignore[assignment]
    seconds: dict[str, float] = spark["seconds"]  # type: ignore[assignment]
    failed = {name: node for name, node in nodes.items() if node["status"] not in PASSED}
    tests = [name for name in nodes if not name.startswith("model.")]
    equal = [mart for mart in marts if mart.is_equal]
    place = f"a standalone cluster of {workers} workers" if workers else "one process"
    lines = [
        "# The models on Spark and on DuckDB", "",
        f"`make scale`: {turns:,} turns and steps of a simulated fleet, in"
        f" {pluralize(len(duckdb.inputs), 'load')}. Gate, ledger and load are the same code: Spark reads the"
        " tables of the wire as they were admitted, as Parquet. Every column of every row is compared, decimals to the"
        " last digit. `rounded` are rows that differ in the last digits of a sum of seconds alone (DOUBLE).", "",
        f"Spark 4.3.0 on {place}, {os.cpu_count()} cores, {os.getloadavg()[0]:.1f} programs wanted them at last.", "",
        f"- DuckDB: load {duckdb.load_seconds:.0f} s, all models {duckdb.build_seconds:.0f} s.",
        f"- Spark: start {seconds['start']:.0f} s, models and tests {seconds['build']:.0f} s, marts as Parquet"
        f" {seconds['write']:.0f} s.",
        f"- Marts: {len(equal)} of {len(marts)} equal,"
        f" {sum(mart.missing + mart.surplus for mart in marts)} differing rows.",
        f"- dbt tests on Spark: {sum(nodes[name]['status'] in PASSED for name in tests)} of {len(tests)} passed.", "",
        "| mart | rows | missing | surplus | rounded | seconds on Spark | columns |", "|---|---|---|---|---|---|---|",
        *(
            f"| {mart.mart} | {mart.rows:,} | {mart.missing} | {mart.surplus} | {mart.rounded}"
            f" | {seconds_of(nodes, mart.mart)} | {', '.join(mart.columns) if mart.is_there else 'not built'} |"
            for mart in marts
        ),
    ]  # fmt: skip
    if failed:
        lines += ["", "## What did not run", ""]
        lines += [f"- `{name}`: {node['status']}. {reason(str(node['message']))}" for name, node in failed.items()]
    return "\n".join(lines) + "\n"


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
        yield named.absolute()
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def run(
    home: Home, *, days: int, workers: int, loads: int = 1, select: list[str]
) -> tuple[str, list[Comparison], dict[str, object]]:
    """The whole comparison: its report, the marts, and what Spark said."""
    devices = fleet.demo_fleet(last_day=LAST_DAY, days=days)
    duckdb = on_duckdb(home, [devices[number::loads] for number in range(loads)], select)
    with cluster.running(workers, home.root / "spark" / "cluster") if workers else nullcontext("local[2]") as master:
        spark = on_spark(home, duckdb.inputs, master, select)
    marts = compare(duckdb.path, home.root / "spark" / "marts", but=BUILD_COUNTERS if loads > 1 else ())
    return report(workers, duckdb, spark, marts), marts, spark


def main() -> int:
    """Compare, write the report; 1 if a mart differs or is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--loads", type=int, choices=(1, 2), default=1)
    parser.add_argument("--home", type=Path)
    parser.add_argument("--select", nargs="*", default=[])
    parser.add_argument("--report", type=Path, default=REPORT)
    options = parser.parse_args()
    if cluster.java() is None:
        print(cluster.NO_JAVA, file=sys.stderr)
        return 2
    with place_for(options.home) as folder:
        text, marts, spark = run(
            Home(folder), days=options.days, workers=options.workers, loads=options.loads, select=options.select
        )
    options.report.write_text(text, "utf-8")
    print(text)
    nodes: dict[str, dict[str, object]] = spark["nodes"]  # type: ignore[assignment]
    return int(not all(mart.is_equal for mart in marts) or any(n["status"] not in PASSED for n in nodes.values()))


if __name__ == "__main__":
    raise SystemExit(main())
