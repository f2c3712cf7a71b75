"""`make focus-check`: the statements of a simulated fleet before a third party's validator, in its own environment.

The validator knows rule set 1.0 and looks for some columns under other names, so it is given a copy of the CSV that has
both (pipelines/billing/focus.py, `compatible`). It says nothing about money; tests/billing does.
Does not belong here: our own rules for rows (pipelines/billing/verify.py).
"""

import csv
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pyarrow.parquet as pq

from pipelines.billing import focus
from pipelines.billing.exports import COSTS
from pipelines.home import Home

CHECKS = 133


def compatible_copy(exports: Path, target: Path) -> int:
    """One CSV of the newest version of every day, in the validator's words; its rows."""
    rows = []
    for day in sorted((exports / "daily").glob("billing_period=*/usage_date=*")):
        (newest, *_) = sorted(day.glob("v[0-9][0-9][0-9][0-9]"), reverse=True)
        rows += pq.read_table(newest / f"{COSTS}.parquet", partitioning=None).to_pylist()
    schema, wide = focus.compatible(focus.COST_AND_USAGE, rows)
    with target.open("w", encoding="utf-8", newline="") as file:  # a negative number must not get a quote before it
        writer = csv.DictWriter(file, schema.names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(wide)
    return len(rows)


def validate(environment: Path, file: Path, report: Path) -> tuple[int, int]:
    """Run the validator; its checks and failures, from its report: its exit code is always 0."""
    # It opens its list of currencies by a path relative to the folder it is started in.
    (packages,) = (environment / "lib").glob("python3*/site-packages")
    program = environment / "bin" / "focus-validator"
    report.unlink(missing_ok=True)
    subprocess.run(
        [program, "--data-file", file, "--validate-version", "1.0", "--output-type", "unittest",
         "--output-destination", report],
        cwd=packages, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    said = ET.parse(report).getroot().attrib
    return int(said["tests"]), int(said["failures"]) + int(said["errors"])


def main() -> int:
    """Validate what `apiary demo` exported under APIARY_HOME."""
    environment, home = Path(sys.argv[1]).absolute(), Home.from_environment()
    work = environment.parent
    file, report = work / "focus.csv", work / "focus.xml"
    rows = compatible_copy(home.exports, file)
    if not rows:
        print("no cost row was exported: nothing can be validated", file=sys.stderr)
        return 1
    tests, failures = validate(environment, file, report)
    print(f"{rows} rows: {tests} checks, {failures} failures")
    if (tests, failures) != (CHECKS, 0):
        print(f"expected {CHECKS} checks without a failure; see {os.path.relpath(report)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
