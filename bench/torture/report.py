"""Adds rounds up over all invocations: finished rounds as lines of bench/reports/torture.jsonl, totals beside them.

Does not belong here: what a round is (rounds.py).
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.torture import points
from bench.torture.rounds import Outcome, Round
from bench.torture.truth import WRONG

REPOSITORY = Path(__file__).resolve().parents[2]
REPORTS = REPOSITORY / "bench" / "reports"
ROUNDS = REPORTS / "torture.jsonl"
GOAL_DEATHS, GOAL_RECORDS, GOAL_HITS = 10_000, 5_000_000, 20
Make = Callable[[Path, int, Counter[str]], Round]


def run(options: argparse.Namespace, seed: int, make: Make) -> int:
    """Rounds until the goal, the number or the time is reached. 0 if all came out right."""
    rows = [] if options.no_report else _finished()
    hits = Counter[str]()
    for row in rows:
        hits.update(row["points"])
    if rows:
        _write(rows)  # lines of another checkout may have been put beside ours
    begun, done = time.monotonic(), 0
    while _goes_on(options, rows, hits, done, time.monotonic() - begun):
        print(f"seed {seed + done} ...", flush=True)
        folder = Path(tempfile.mkdtemp(prefix="torture-"))
        try:
            outcome = make(folder, seed + done, hits).run()
            if not outcome.is_good and options.keep:
                shutil.copytree(folder, options.keep / str(outcome.seed), symlinks=True, dirs_exist_ok=True)
        finally:
            subprocess.run(["umount", str(folder / "disk")], capture_output=True, check=False)
            shutil.rmtree(folder, ignore_errors=True)
        done += 1
        print(_line(outcome), flush=True)
        finished_at = datetime.now(UTC).isoformat(timespec="seconds")
        for said, of_the_report in ((folder, "round"), (REPOSITORY, ".")):
            outcome.problems = [text.replace(str(said), of_the_report) for text in outcome.problems]
        row = asdict(outcome) | {"finished_at": finished_at, "revision": _revision()}
        rows.append(row)
        if not options.no_report:
            REPORTS.mkdir(exist_ok=True)
            with ROUNDS.open("a") as file:
                file.write(json.dumps(row) + "\n")
            _write(rows)
        if not outcome.is_good:
            print(
                "\n".join([*outcome.problems, *outcome.verdict.get("details", ()), outcome.verdict.get("failed", "")]),
                flush=True,
            )
            print(f"wrong: replay with --seed {outcome.seed} --rounds 1", flush=True)
            return 1
    return 0


def _revision() -> str:
    """Which commit was tortured."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False).stdout.strip()


def _goes_on(
    options: argparse.Namespace, rows: list[dict[str, Any]], hits: Counter[str], done: int, seconds: float
) -> bool:
    if options.minutes is not None and seconds >= options.minutes * 60:
        return False
    if options.rounds is not None:
        return done < options.rounds
    total = _totals(rows)
    return (
        total["deaths"] < GOAL_DEATHS
        or total["records"] < GOAL_RECORDS
        or any(hits[name] < GOAL_HITS for name in points.TORTURED)
    )


def _line(outcome: Outcome) -> str:
    found = [name for name in WRONG if name in WRONG[:3] or outcome.verdict.get(name)]
    wrong = ", ".join(f"{name.replace('_', ' ')} {outcome.verdict.get(name, '?')}" for name in found)
    return (
        f"seed {outcome.seed}: {outcome.deaths} deaths ({outcome.killed} killed, {outcome.exited} at failpoints), "
        f"{outcome.records} records in {outcome.lines} lines, {outcome.seconds} s: {wrong}"
    )


def _finished() -> list[dict[str, Any]]:
    return [json.loads(line) for line in ROUNDS.read_text().splitlines()] if ROUNDS.exists() else []


def _write(rows: list[dict[str, Any]]) -> None:
    """The totals, for programs and for people."""
    total = _totals(rows)
    (REPORTS / "torture.json").write_text(json.dumps(total, indent=1) + "\n")
    (REPORTS / "torture.md").write_text(_text(total))


def _totals(rows: list[dict[str, Any]]) -> dict[str, Any]:
    total: dict[str, Any] = {"rounds": len(rows)}
    for name in ("deaths", "killed", "exited", "lives", "records", "lines"):
        total[name] = sum(row[name] for row in rows)
    total["seconds"] = round(sum(row["seconds"] for row in rows), 1)
    for name in (*WRONG, "present", "excused"):
        total[name] = sum(row["verdict"].get(name, 0) for row in rows)
    total["ended_early"] = [
        (row["seed"], row.get("revision", ""), row["problems"][0].strip().splitlines()[-1])
        for row in rows
        if row["problems"]
    ]
    total["rounds_with_problems"] = sum(bool(row["problems"]) for row in rows)
    for name in ("points", "full_at", "faults", "acts", "states"):
        added: Counter[str] = Counter()
        for row in rows:
            added.update(row[name])
        total[name] = dict(sorted(added.items()))
    total["seeds"] = [row["seed"] for row in rows]
    total["revisions"] = sorted({row.get("revision", "") for row in rows} - {""})
    return total


def _text(total: dict[str, Any]) -> str:
    """The totals for people."""
    points_hit, full_at = total["points"], total["full_at"]
    parts = [
        "# Torture", "",
        "Written by `make torture`; the rounds stand in `torture.jsonl`, the totals in `torture.json`.", "",
        _table(("what", "count"), [(name.replace("_", " "), total[name]) for name in (
            "rounds", "rounds_with_problems", "seconds", "lives", "deaths", "killed", "exited", "records", "lines",
            "present", "excused", *WRONG)]),
        "Deaths: processes that ended by SIGKILL or by `os._exit` at a failpoint. Records: whole records that a writer "
        "left in a home, each counted once; lines: with telemetry, doubles and copies. Excused: destroyed unread by "
        "their owner, or refused by the store for good and counted in a tombstone; they may "
        "be missing, never doubled.", "",
        "## Failpoints", "",
        _table(("failpoint", "deaths there", "disk full there"),
               [(f"`{name}`", points_hit.get(name, 0), full_at.get(name, 0)) for name in points.TORTURED]),
    ]  # fmt: skip
    if total["ended_early"]:
        parts += [
            "## Rounds that ended early",
            "",
            _table(("seed", "commit", "what"), [tuple(row) for row in total["ended_early"]]),
        ]
    for title, name in (
        ("Faults of the store and the disk", "faults"), ("What the writer did", "acts"), ("States", "states"),
    ):  # fmt: skip
        rows = [(key.replace("_", " "), times) for key, times in total[name].items()]
        parts += [f"## {title}", "", _table(("what", "times"), rows)]
    parts += ["## Seeds and commits", "", ", ".join(map(str, total["seeds"])), ""]
    parts += [", ".join(total["revisions"]), ""]
    return "\n".join(parts)


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"
