"""`make focus-check`: the statements of a simulated fleet before a third party's validator, in its own environment.

The validator knows rule set 1.0 and looks for some columns under other names, so it is given a copy of the CSV that has
both (pipelines/billing/focus.py, `compatible`). It says nothing about money; tests/billing does. The conditional rules
that it passes over are looked at beside it (pipelines/billing/focus_rules.py).
"""

import csv
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pyarrow.parquet as pq

from pipelines.billing import focus, focus_rules
from pipelines.billing.exports import COSTS
from pipelines.home import Home

CHECKS = 133


def compatible_copy(exports: Path, target: Path) -> int:
    """One CSV of the newest version of every day, in the validator's words; its rows."""
    rows = rows_of_months(exports)
    schema, wide = focus.compatible(focus.COST_AND_USAGE, rows)
    with target.open("w", encoding="utf-8", newline="") as file:  # a negative number must not get a quote before it
        writer = csv.DictWriter(file, schema.names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(wide)
    return len(rows)


def rows_of_months(exports: Path) -> list[dict[str, object]]:
    """The cost rows of all days by the newest versions: whole months, for rules that rows follow together."""
    rows: list[dict[str, object]] = []
    for day in sorted((exports / "daily").glob("billing_period=*/usage_date=*")):
        (newest, *_) = sorted(day.glob("v[0-9][0-9][0-9][0-9]"), reverse=True)
        rows += pq.read_table(newest / f"{COSTS}.parquet", partitioning=None).to_pylist()
    return rows


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
    every = rows_of_months(home.exports)
    wrong = focus_rules.faults(every)
    categories = sorted({str(row["ChargeCategory"]) for row in every})
    currencies = sorted({str(row["BillingCurrency"]) for row in every})
    print(f"{len(every)} rows, {', '.join(categories)}, in {', '.join(currencies)}: {len(wrong)} break our own rules")
    for what in wrong[:20]:
        print(what, file=sys.stderr)
    tests, failures = validate(environment, file, report)
    print(f"{rows} rows: {tests} checks, {failures} failures")
    if wrong or len(currencies) < 2 or not {"Adjustment", "Credit", "Purchase", "Usage"} <= set(categories):
        print("expected rows of every charge category in two currencies, none against our rules", file=sys.stderr)
        return 1
    if (tests, failures) != (CHECKS, 0):
        print(f"expected {CHECKS} checks without a failure; see {os.path.relpath(report)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
