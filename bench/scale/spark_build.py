"""The models on Spark, as a process of its own: `python -m bench.scale.spark_build OUTPUTS INPUTS ... --master URL`.

INPUTS holds a folder of Parquet for each table that models read, `schema/table`; OUTPUTS gets one for each mart. Of
several INPUTS each is what was loaded by then: models are built on the first, and brought up to date with each other.
With `--alone` INPUTS holds what the chosen models read, other models among it: they are built and nothing else, no test
runs, and OUTPUTS gets each of them.
Its tables are the folder `tables` beside OUTPUTS, which is emptied when it begins.
Does not belong here: comparing (compare.py).
"""

import argparse
import json
import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from pyspark.sql import SparkSession

from bench.scale.dbt_models import PASSED, PROJECT, build, is_built
from pipelines.engine import Engine

JAVA = "-Duser.timezone=UTC -XX:+UseSerialGC"
# Hundreds of short queries: what the second compiler gains it does not earn back. Without it Java keeps 48 MB for code,
# which the classes that Spark makes for each query fill.
SHORT_QUERIES = "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m"


@dataclass(frozen=True)
class Size:
    """What a session takes: memory of the driver and of an executor, and into how many parts a shuffle is cut."""

    driver: str
    executor: str
    partitions: int
    java: str


SMALL = Size("1500m", "640m", 2, f"{JAVA} {SHORT_QUERIES}")
LARGE = Size("4g", "3g", 8, JAVA)


def session(master: str, folder: Path, size: Size = SMALL) -> SparkSession:
    """A session in UTC whose decimals keep all their digits, and that fails where DuckDB fails."""
    settings = {
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.ansi.enabled": "true",
        "spark.sql.decimalOperations.allowPrecisionLoss": "false",
        "spark.sql.warehouse.dir": str(folder / "tables"),
        "spark.sql.sources.default": "parquet",
        "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",  # else a form that tells no zone
        "spark.sql.shuffle.partitions": str(size.partitions),
        "spark.sql.cteRecursionRowLimit": "-1",
        "spark.sql.debug.maxToStringFields": "50",
        "spark.driver.memory": size.driver,
        "spark.executor.memory": size.executor,
        "spark.executor.cores": "1",
        "spark.driver.extraJavaOptions": size.java,
        "spark.executor.extraJavaOptions": size.java,
        "spark.ui.enabled": "false",
        # What is kept of queries that are done: of hundreds, with their plans, it fills the memory.
        "spark.sql.ui.retainedExecutions": "1",
        "spark.ui.retainedJobs": "1",
        "spark.ui.retainedStages": "1",
        "spark.ui.retainedTasks": "1",
        "spark.local.dir": str(folder / "local"),
    }
    builder = SparkSession.builder.master(master).appName("apiary")
    for name, value in settings.items():
        builder = builder.config(name, value)
    found = builder.getOrCreate()
    found.sparkContext.setLogLevel("ERROR")
    return found


def register(spark: SparkSession, inputs: Path) -> None:
    """Every folder of Parquet as a table, where it lies."""
    for schema in sorted(path for path in inputs.iterdir() if path.is_dir()):
        spark.sql(f"create schema if not exists {schema.name}")
        for table in sorted(path for path in schema.iterdir() if path.is_dir()):
            spark.sql(f"drop table if exists {schema.name}.{table.name}")  # the files stay
            spark.sql(f"create table {schema.name}.{table.name} using parquet location '{table}'")


def write(spark: SparkSession, outputs: Path, relations: list[str]) -> None:
    """Each of them as Parquet, in a folder of its name without the schema."""
    for relation in relations:
        table = relation.partition(".")[2]
        spark.table(relation).coalesce(1).write.mode("overwrite").parquet(str(outputs / table))


def main() -> int:
    """Build, write the marts and `results.json`; 1 if a model or test failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("outputs", type=Path)
    parser.add_argument("inputs", type=Path, nargs="+")
    parser.add_argument("--master", default="local[2]")
    parser.add_argument("--large", action="store_true", help="millions of rows: more memory, and parts of a shuffle")
    parser.add_argument("--select", nargs="*", default=[])
    parser.add_argument("--alone", action="store_true")
    options = parser.parse_args()
    sys.path.insert(0, str(PROJECT / "spark"))
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    folder = options.outputs.parent
    begun = time.monotonic()
    # A new session knows no table of one that was killed, and Spark makes none where its files lie.
    shutil.rmtree(folder / "tables", ignore_errors=True)
    spark = session(options.master, folder, LARGE if options.large else SMALL)
    started = time.monotonic()
    for inputs in options.inputs:
        register(spark, inputs)
        results = build(Engine.SPARK, folder, options.select, tests=inputs == options.inputs[-1] and not options.alone)
        if not is_built(results):
            break
    built = time.monotonic()
    models = [
        str(node["relation"])
        for name, node in results.items()
        if name.startswith("model.") and node["status"] in PASSED
    ]
    write(spark, options.outputs, [model for model in models if options.alone or model.startswith("marts.")])
    seconds = {"start": started - begun, "build": built - started, "write": time.monotonic() - built}
    (options.outputs / "results.json").write_text(json.dumps({"seconds": seconds, "nodes": results}), "utf-8")
    spark.stop()
    return int(not is_built(results))


if __name__ == "__main__":
    raise SystemExit(main())
