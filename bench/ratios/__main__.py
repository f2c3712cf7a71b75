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

from bench.ratios import device, dlt_peer, growth, history, idle, job, landing, memory, own, plot, tiny
from bench.ratios.measure import Benchmark, Found, add_pairs

REPORTS = Path(__file__).resolve().parents[1] / "reports"
COMMITTED, REPORT = REPORTS / "ratios.json", REPORTS / "latest.md"
WORSE = 0.25
MORE_PAIRS, ROUNDS = 2, 3
DEVICE, LANDING, JOB = "bench.ratios.device", "bench.ratios.landing", "bench.ratios.job"
MEMORY, GROWTH, HISTORY = "bench.ratios.memory", "bench.ratios.growth", "bench.ratios.history"
PEER = "bench.ratios.dlt_peer"
OWN = "bench.ratios.own"
KINDS = ("test", "quick", "whole")

QUICK = (
    Benchmark(
        "device_backlog", "B1: the device reads, seals and delivers a backlog of logs",
        "each line that matters parsed by orjson, the same columns written by pyarrow; no state, no rules",
        device.prepare_backlog, f"{DEVICE}:ship_backlog", f"{DEVICE}:read_backlog", target=2.0, size=(8, 8, 32),
    ),
    Benchmark(
        "device_idle", "B2: the device looks at quiet sessions, the whole process",
        "`os.scandir` and `stat` of the same tree, the whole process",
        idle.prepare_quiet, "bench.ratios.idle:look_again", "bench.ratios.tree:walk", target=2.0,
        size=(2_000, 2_000, 10_000), is_process=True, allowance=0.5,
    ),
    Benchmark(
        "wire_size", "B4: bytes in the landing", "the same fields of the same rows as CSV, `gzip -9`",
        landing.prepare_wire, f"{LANDING}:wire_bytes", f"{LANDING}:gzip_bytes", target=1.0, size=(2, 8, 32), unit="B",
    ),
    Benchmark(
        "load", "B5: landing to wire, with gate, ledger and dedupe",
        "DuckDB `INSERT … SELECT * FROM read_parquet` of the same files",
        landing.prepare_landing, f"{LANDING}:load", f"{LANDING}:insert", target=2.0, size=(20_000, 60_000, 240_000),
    ),
)  # fmt: skip
WHOLE = (
    *QUICK,
    Benchmark(
        "device_peer", "B1: the same backlog beside a peer",
        "DuckDB `read_json` of the same lines on one thread, what matters written as Parquet",
        device.prepare_backlog, f"{DEVICE}:ship_backlog", f"{DEVICE}:read_json", target=4.0, size=(2, 8, 32),
    ),
    Benchmark(
        "device_dlt", "B1: the same backlog beside dlt", "dlt writes the lines that matter as Parquet",
        device.prepare_backlog, f"{DEVICE}:ship_backlog", f"{PEER}:read", target=1.0, size=(2, 8, 32),
    ),
    Benchmark(
        "load_dlt", "B5: the same landing beside dlt", "dlt merges the same files into DuckDB by `record_id`",
        landing.prepare_landing, f"{LANDING}:load", f"{PEER}:load", target=1.0, size=(20_000, 60_000, 240_000),
    ),
    Benchmark(
        "device_line", "B2: one new line in one of the quiet sessions, the whole process", "the same pass without it",
        idle.prepare_quiet, "bench.ratios.idle:read_one_line", "bench.ratios.idle:look_again", target=1.0,
        size=(400, 2_000, 10_000), is_process=True, allowance=0.05,
    ),
    Benchmark(
        "device_memory", "B3: memory of the device on a backlog of 1 GB", "the limit of 150 MB",
        memory.prepare_backlog, f"{MEMORY}:ship_backlog", f"{MEMORY}:limit", target=1.0, size=(2, 100, 1_000),
        unit="MB", pairs=1,
    ),
    Benchmark(
        "device_long_line", "B3: memory of the device on a line of 200 MB", "the limit of 150 MB",
        memory.prepare_long_line, f"{MEMORY}:ship_backlog", f"{MEMORY}:limit", target=1.0, size=(40, 100, 200),
        unit="MB", pairs=1,
    ),
    Benchmark(
        "tiny_batches", "B6: load of batches of one row", "the same objects listed, read and hashed",
        tiny.prepare, "bench.ratios.tiny:load", "bench.ratios.tiny:read", target=12.0, size=(50, 200, 20_000), pairs=1,
    ),
    Benchmark(
        "own_usage", "`apiary me` on a year of logs that it has not seen, the whole process",
        "each line of the same logs read, those of turns parsed by orjson and summed, the whole process",
        own.prepare, f"{OWN}:read_first", f"{OWN}:scan", target=10.0, size=(2, 32, 250), is_process=True, pairs=1,
    ),
    Benchmark(
        "own_usage_again", "`apiary me` on the same with sums that were kept and nothing new, the whole process",
        "the same scan", own.prepare, f"{OWN}:read_again", f"{OWN}:scan", target=1.0, size=(2, 32, 250),
        is_process=True, allowance=0.5,
    ),
    Benchmark(
        "run_again", "`apiary run` with nothing new, the whole process",
        "`apiary --version`, and the ledger asked for the number of its batches",
        job.prepare_run, f"{JOB}:run_again", f"{JOB}:version_and_ledger", target=2.0, size=(0, 0, 0), is_process=True,
    ),
    Benchmark(
        "usage_by_session", "B10: `apiary usage --by session`, the whole process",
        "DuckDB asked the same of the published Parquet, the whole process",
        job.prepare_usage, f"{JOB}:usage", f"{JOB}:query", target=2.0, size=(0, 0, 0), is_process=True,
    ),
    Benchmark(
        "models", "B7: all models built from the start by dbt", "DuckDB executes the same SELECTs",
        growth.prepare_models, f"{GROWTH}:build", f"{GROWTH}:build_plainly", target=1.3, size=(300, 3_000, 160_000),
        pairs=1,
    ),
    Benchmark(
        "one_day", "B8: `apiary run` with one new day after a year", "the same after 10 days",
        history.prepare_histories, f"{HISTORY}:run_after_long", f"{HISTORY}:run_after_short", target=1.2,
        size=(20, 100, 365), pairs=1,
    ),
    Benchmark(
        "rating", "B9: lines rated in exact decimals", "polars multiplies floats, of the same turns",
        growth.prepare_rating, f"{GROWTH}:rate", f"{GROWTH}:rate_in_floats", target=2.0, size=(300, 3_000, 160_000),
    ),
    Benchmark(
        "routes", "B11: the slowest route of the API, p95 of its answers", "DuckDB adds up the published Parquet, p95",
        growth.prepare_questions, f"{GROWTH}:ask_routes", f"{GROWTH}:ask_parquet", target=0.0,
        size=(300, 3_000, 160_000), unit="ms", allowance=300.0,
    ),
)  # fmt: skip
LIMITS = {
    "device_backlog": "what the floor does not do takes the rest: a record is redacted, identified, dated by the clock"
    " of its log, looked up, and held in a database until it is delivered: each is a few microseconds of Python a row,"
    " and none takes more than 7 %",
    "device_peer": "as above; DuckDB parses in C++ and keeps no state",
    "device_dlt": "as above",
    "load_dlt": "as `load`",
    "device_idle": "some 62 microseconds a session, most of them Python: a name is parsed, told from copies, and looked"
    " for among the digests",
    "device_line": "the digests of all sessions are written again, and the folder that changed is looked at twice",
    "device_memory": "pyarrow and the interpreter take 70 MB, a chunk's lines and the rows of a batch the rest",
    "device_long_line": "up to 32 MB of a line are held, and again as text and as objects",
    "wire_size": "the text of `record_id`, 32 hexadecimal digits that nothing packs below 16 bytes, is most of a row",
    "load": "the gate decodes each batch in a child of its own, and a record is looked for among all that are loaded",
    "tiny_batches": "a batch costs its manifest, its checks and its place in the ledger, however few rows it has",
    "own_usage": "as for a backlog of the device: the same code reads, redacts, identifies and holds each record, and"
    " the price book rates each turn",
    "own_usage_again": "start-up and imports of the command line, and one look at each file",
    "run_again": "the listing of the landing and the fingerprints of books, code and results",
    "usage_by_session": "start-up and imports of the command line",
    "models": "dbt compiles each model, compares its contract and commits it alone",
    "one_day": "models without a replace key are built anew, and every test reads all that there is",
    "rating": "the exact line also has bounds, tiers, agreements and the rate of exchange, which the floats leave out",
    "routes": "each request opens the publication and its views anew",
}
"""What keeps a benchmark from its target, where it does."""


UNMEASURED = {
    "B7, B11: 10 M turns, and 100 M by the fitted law": "loading and building 10 M takes hours of two cores; the growth"
    " of each model is fitted below, from the sizes named there",
    "B8: 1,000 days of history": "a year is measured",
    "B2: 100,000 quiet sessions, B3: a backlog of 10 GB, B6: 100,000 batches": "a tenth, a tenth and a fifth are"
    " measured",
    "B12: `make test` within six minutes": "it has no floor; on two quiet cores it takes about nine, of builds of"
    " models in two dozen files and of properties with many examples, and no case was left out to make it shorter",
}
"""What is wanted and has no benchmark here yet, and why."""
GROWTH_SIZES = {"test": (300, 600), "quick": (1_500, 3_000), "whole": (10_000, 40_000, 160_000)}
MAX_EXPONENT = 1.05


def measured(benchmark: Benchmark, root: Path, *, kind: str, committed: dict[str, Any] | None) -> Found:
    """Measure, and measure more while the ratio looks worse than the committed one."""
    shared = {JOB: "job", GROWTH: "growth"}  # of these the benchmarks ask one home
    folder = root / shared.get(benchmark.prepare.__module__, benchmark.name)
    folder.mkdir(parents=True, exist_ok=True)
    wanted = benchmark.prepare(folder, benchmark.size[KINDS.index(kind)])
    found = Found()
    add_pairs(benchmark, folder, wanted, found, benchmark.pairs)
    for _ in range(ROUNDS):
        if not (committed and is_worse(found, committed)):
            break
        add_pairs(benchmark, folder, wanted, found, MORE_PAIRS)
    return found


def is_worse(found: Found, committed: dict[str, Any]) -> bool:
    """Whether a ratio is worse by more than a quarter beyond the spread of the two measurements."""
    return found.ratio > committed["ratio"] * (1 + WORSE) * (1 + max(found.spread, committed["spread"]))


def is_met(benchmark: Benchmark, told: dict[str, Any]) -> bool:
    """Whether a target was reached."""
    met: bool = told["ours"] <= told["floor"] * benchmark.target + benchmark.allowance
    return met


def line(benchmark: Benchmark, told: dict[str, Any]) -> str:
    """A row of the report."""
    target = f"{benchmark.target:g}" + (f" and {benchmark.allowance:g} {benchmark.unit}" if benchmark.allowance else "")
    sums = ", ".join(f"{name} {number:,}" for name, number in told["sums"].items())
    return (
        f"| {benchmark.title} | {benchmark.floor_title} | {told['ratio']:.2f} | {told['spread']:.0%} of {told['pairs']}"
        f" pairs | {target} | {'yes' if is_met(benchmark, told) else 'no'} | {told['ours']:,} {benchmark.unit} |"
        f" {told['floor']:,} {benchmark.unit} | {sums} |"
    )


def report(results: dict[str, dict[str, Any]], grown: dict[str, Any] | None) -> str:
    """The report of a whole run, in Markdown."""
    done = [benchmark for benchmark in WHOLE if benchmark.name in results]
    rows = [line(benchmark, results[benchmark.name]) for benchmark in done]
    missing = [f"- {benchmark.title}: not measured yet." for benchmark in WHOLE if benchmark.name not in results]
    missing += [f"- {what}: not measured: {why}." for what, why in UNMEASURED.items()]
    missed = [
        f"- {benchmark.title}: {results[benchmark.name]['ratio']:.2f} times the floor instead of {benchmark.target:g}:"
        f" {LIMITS[benchmark.name]}."
        for benchmark in done
        if not is_met(benchmark, results[benchmark.name])
    ]
    return "\n".join([
        "# Ratios to the floor", "",
        "Written by `make bench`. A ratio is the least that our side took to the least that the floor took, in"
        " processor seconds (or bytes) of the same data in the same run; the sums of both sides are equal, or there is"
        " no report. The bars of ratios.svg are these ratios."
        f" {os.cpu_count()} cores, Python {platform.python_version()}.", "",
        "| what | floor | ratio | spread | target | reached | ours | floor | sums of both |",
        "|---|---|---|---|---|---|---|---|---|", *rows, "", "## Not reached", "", *missed, *missing, "",
        *(growth_report(grown) if grown else ()),
    ])  # fmt: skip


def models_growth(root: Path, kind: str) -> dict[str, Any]:
    """How each model's processor seconds grow with turns, over warehouses of several sizes."""
    found: dict[int, dict[str, float]] = {}
    for size in GROWTH_SIZES[kind]:
        folder = root / ("growth" if size == GROWTH_SIZES[kind][-1] else f"growth-{size}")
        folder.mkdir(exist_ok=True)
        turns = growth.prepare_models(folder, size)["turns"]
        found[turns] = growth.model_seconds(folder)
    largest = found[max(found)]
    slopes = growth.exponents(found)
    return {
        "sizes": sorted(found),
        "seconds": {str(turns): round(sum(took.values()), 2) for turns, took in found.items()},
        "models": {
            model: {"exponent": round(slopes[model], 2), "seconds": round(largest[model], 2)}
            for model in sorted(slopes, key=lambda name: -slopes[name])
        },
    }


def growth_report(told: dict[str, Any]) -> list[str]:
    """The section on growth, in Markdown."""
    sizes = ", ".join(f"{turns:,}" for turns in told["sizes"])
    faster = [model for model, found in told["models"].items() if found["exponent"] > MAX_EXPONENT]
    return [
        "## How models grow", "",
        f"B7: each model's SELECT executed by DuckDB over {sizes} turns; the exponent is the slope of the logarithm of"
        " processor seconds over that of turns: 1 grows as the turns do. Models below a tenth of a second at the"
        " largest size say nothing and are left out. All models: "
        + ", ".join(f"{seconds} s at {int(turns):,}" for turns, seconds in told["seconds"].items())
        + f". Above {MAX_EXPONENT}: {', '.join(faster) or 'none'}.", "",
        "| model | exponent | seconds at the largest size |", "|---|---|---|",
        *(f"| {model} | {found['exponent']} | {found['seconds']} |" for model, found in told["models"].items()), "",
    ]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small data, and nothing that needs a warehouse")
    parser.add_argument("--test", action="store_true", help="the least data, as `make test` runs it")
    parser.add_argument("--write", action="store_true", help="keep the ratios as those to compare with")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="some benchmarks, and `growth`")
    options = parser.parse_args(arguments)
    kind = "test" if options.test else "quick" if options.quick else "whole"
    committed = json.loads(COMMITTED.read_text("utf-8")) if COMMITTED.exists() else {}
    old = committed.get(kind, {})
    results: dict[str, dict[str, Any]] = {}
    worse = []
    with tempfile.TemporaryDirectory() as root:
        for benchmark in WHOLE if kind == "whole" else QUICK:
            if options.only and benchmark.name not in options.only:
                continue
            if benchmark.floor.startswith(PEER) and not dlt_peer.PYTHON.exists():
                print(f"{benchmark.name:<18} skipped: dlt is not installed: run `make bench`", file=sys.stderr)
                continue
            before = None if options.write else old.get(benchmark.name)
            found = measured(benchmark, Path(root), kind=kind, committed=before)
            results[benchmark.name] = found.told()
            said = f"{benchmark.name:<18} {found.ratio:7.2f} ± {found.spread:4.0%}  target {benchmark.target:g}"
            print(said, f"  committed {before['ratio']:.2f}" if before else "", flush=True)
            if before and is_worse(found, before):
                worse.append(benchmark.name)
        is_growth_wanted = kind == "whole" and "growth" in (options.only or ["growth"])
        grown = models_growth(Path(root), kind) if is_growth_wanted else None
    if options.write:
        committed = json.loads(COMMITTED.read_text("utf-8")) if COMMITTED.exists() else {}
        committed[kind] = committed.get(kind, {}) | results
        if grown:
            committed["growth"] = grown
        COMMITTED.write_text(json.dumps(committed, indent=1) + "\n", "utf-8")
        if kind == "whole":
            (REPORTS / "ratios.svg").write_text(plot.bars(committed[kind], {b.name: b for b in WHOLE}), "utf-8")
            REPORT.write_text(report(committed[kind], committed.get("growth")), "utf-8")
    if worse:
        print(f"worse than the committed ratio by more than a quarter: {', '.join(worse)}", file=sys.stderr)
    return 1 if worse else 0


if __name__ == "__main__":
    raise SystemExit(main())
