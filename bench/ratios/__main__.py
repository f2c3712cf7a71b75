"""`python -m bench.ratios [--quick] [--write]`: measures each benchmark and compares its ratio with the committed one.

Exit code 1: a ratio is worse than the committed one by more than a quarter beyond what was measured to be chance, also
after more pairs were measured. Does not belong here: what is measured (device.py, idle.py, landing.py, job.py).
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.ratios import device, idle, job, landing
from bench.ratios.measure import Benchmark, Found, add_pairs

REPORTS = Path(__file__).resolve().parents[1] / "reports"
COMMITTED, REPORT = REPORTS / "ratios.json", REPORTS / "latest.md"
WORSE = 0.25
PAIRS, MORE_PAIRS, ROUNDS = 2, 2, 3
DEVICE, LANDING, JOB = "bench.ratios.device", "bench.ratios.landing", "bench.ratios.job"

QUICK = (
    Benchmark(
        "device_backlog", "B1: the device reads, seals and delivers a backlog of logs",
        "each line that matters parsed by orjson, the same columns written by pyarrow; no state, no rules",
        device.prepare_backlog, f"{DEVICE}:ship_backlog", f"{DEVICE}:read_backlog", target=2.0, size=(8, 32),
    ),
    Benchmark(
        "device_idle", "B2: the device looks at quiet sessions, the whole process",
        "`os.scandir` and `stat` of the same tree, the whole process",
        idle.prepare_quiet, "bench.ratios.idle:look_again", "bench.ratios.tree:walk", target=2.0, size=(2_000, 10_000),
        is_process=True,
    ),
    Benchmark(
        "wire_size", "B4: bytes in the landing", "the same fields of the same rows as CSV, `gzip -9`",
        landing.prepare_wire, f"{LANDING}:wire_bytes", f"{LANDING}:gzip_bytes", target=1.0, size=(8, 32), unit="B",
    ),
    Benchmark(
        "load", "B5: landing to wire, with gate, ledger and dedupe",
        "DuckDB `INSERT … SELECT * FROM read_parquet` of the same files",
        landing.prepare_landing, f"{LANDING}:load", f"{LANDING}:insert", target=2.0, size=(60_000, 240_000),
    ),
)  # fmt: skip
WHOLE = (
    *QUICK,
    Benchmark(
        "run_again", "`apiary run` with nothing new, the whole process",
        "`apiary --version`, and the ledger asked for the number of its batches",
        job.prepare_run, f"{JOB}:run_again", f"{JOB}:version_and_ledger", target=2.0, size=(0, 0), is_process=True,
    ),
    Benchmark(
        "usage_by_session", "B10: `apiary usage --by session`, the whole process",
        "DuckDB asked the same of the published Parquet, the whole process",
        job.prepare_usage, f"{JOB}:usage", f"{JOB}:query", target=2.0, size=(0, 0), is_process=True,
    ),
)  # fmt: skip
LIMITS = {
    "device_backlog": "what the floor does not do takes the rest: a record is redacted, identified, dated by the clock"
    " of its log, looked up, and held in a database until it is delivered: each is a few microseconds of Python a row",
    "device_idle": "start-up and imports, then one lookup of the checkpoint per log and of the signature per file",
    "wire_size": "the text of `record_id`, 32 hexadecimal digits that nothing packs below 16 bytes, is most of a row",
    "load": "the gate decodes each batch in a child of its own, and rows are compared with all that are loaded",
    "run_again": "the listing of the landing and the fingerprints of books, code and results",
    "usage_by_session": "start-up and imports of the command line",
}
"""What keeps a benchmark from its target, where it does."""


def measured(benchmark: Benchmark, root: Path, *, is_quick: bool, committed: dict[str, Any] | None) -> Found:
    """Measure, and measure more while the ratio looks worse than the committed one."""
    folder = root / ("job" if benchmark.prepare.__module__ == JOB else benchmark.name)
    folder.mkdir(parents=True, exist_ok=True)
    wanted = benchmark.prepare(folder, benchmark.size[0 if is_quick else 1])
    found = Found()
    add_pairs(benchmark, folder, wanted, found, PAIRS)
    for _ in range(ROUNDS):
        if not (committed and is_worse(found, committed)):
            break
        add_pairs(benchmark, folder, wanted, found, MORE_PAIRS)
    return found


def is_worse(found: Found, committed: dict[str, Any]) -> bool:
    """Whether a ratio is worse by more than a quarter beyond the spread of the two measurements."""
    return found.ratio > committed["ratio"] * (1 + WORSE) * (1 + max(found.spread, committed["spread"]))


def line(benchmark: Benchmark, told: dict[str, Any]) -> str:
    """A row of the report."""
    is_met = told["ratio"] <= benchmark.target
    sums = ", ".join(f"{name} {number:,}" for name, number in told["sums"].items())
    return (
        f"| {benchmark.title} | {benchmark.floor_title} | {told['ratio']:.2f} | {told['spread']:.0%} of {told['pairs']}"
        f" pairs | {benchmark.target:g} | {'yes' if is_met else 'no'} | {told['ours']:,} {benchmark.unit} |"
        f" {told['floor']:,} {benchmark.unit} | {sums} |"
    )


def report(results: dict[str, dict[str, Any]]) -> str:
    """The report of a whole run, in Markdown."""
    done = [benchmark for benchmark in WHOLE if benchmark.name in results]
    rows = [line(benchmark, results[benchmark.name]) for benchmark in done]
    missing = [f"- {benchmark.title}: not measured yet." for benchmark in WHOLE if benchmark.name not in results]
    missed = [
        f"- {benchmark.title}: {results[benchmark.name]['ratio']:.2f} times the floor instead of {benchmark.target:g}:"
        f" {LIMITS[benchmark.name]}."
        for benchmark in done
        if results[benchmark.name]["ratio"] > benchmark.target
    ]
    return "\n".join([
        "# Ratios to the floor", "",
        "Written by `make bench`. A ratio is the least that our side took to the least that the floor took, in"
        " processor seconds (or bytes) of the same data in the same run; the sums of both sides are equal, or there is"
        " no report."
        f" {os.cpu_count()} cores, Python {platform.python_version()}.", "",
        "| what | floor | ratio | spread | target | reached | ours | floor | sums of both |",
        "|---|---|---|---|---|---|---|---|---|", *rows, "", "## Not reached", "", *missed, *missing, "",
    ])  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small data, and nothing that needs a warehouse")
    parser.add_argument("--write", action="store_true", help="keep the ratios as those to compare with")
    parser.add_argument("--only", metavar="NAME", help="one benchmark")
    options = parser.parse_args(arguments)
    kind = "quick" if options.quick else "whole"
    committed = json.loads(COMMITTED.read_text("utf-8")) if COMMITTED.exists() else {}
    old = committed.get(kind, {})
    results: dict[str, dict[str, Any]] = {}
    worse = []
    with tempfile.TemporaryDirectory() as root:
        for benchmark in QUICK if options.quick else WHOLE:
            if options.only not in (None, benchmark.name):
                continue
            before = None if options.write else old.get(benchmark.name)
            found = measured(benchmark, Path(root), is_quick=options.quick, committed=before)
            results[benchmark.name] = found.told()
            said = f"{benchmark.name:<18} {found.ratio:7.2f} ± {found.spread:4.0%}  target {benchmark.target:g}"
            print(said, f"  committed {before['ratio']:.2f}" if before else "", flush=True)
            if before and is_worse(found, before):
                worse.append(benchmark.name)
    if options.write:
        committed = json.loads(COMMITTED.read_text("utf-8")) if COMMITTED.exists() else {}
        committed[kind] = committed.get(kind, {}) | results
        COMMITTED.write_text(json.dumps(committed, indent=1) + "\n", "utf-8")
        if not options.quick:
            REPORT.write_text(report(committed[kind]), "utf-8")
    if worse:
        print(f"worse than the committed ratio by more than a quarter: {', '.join(worse)}", file=sys.stderr)
    return 1 if worse else 0


if __name__ == "__main__":
    raise SystemExit(main())
