"""`make mutants`: the program broken on purpose, one way at a time; each must be found by the test that is named.

A mutant is applied to a copy of the repository; a text that does not stand there exactly once is an error, not a find.
Does not belong here: the mutants (bench/mutations), the tests themselves.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from bench.mutations import MUTANTS, PARTS
from bench.mutations.mutant import Mutant

REPOSITORY = Path(__file__).resolve().parents[1]
REPORT = REPOSITORY / "bench" / "reports" / "mutants.md"
FAILED, PASSED, NO_ANSWER = 1, 0, -1  # exit codes of pytest; any other is no answer

FOLDERS = ("pipelines", "bench", "tests", "dbt_project", "models", "expectations", "policies", "docs")


def patched(text: str, mutant: Mutant) -> str:
    """The file's text with the mutant in it. Raises ValueError if its place is gone."""
    if text.count(mutant.old) != 1:
        raise ValueError(f"{mutant.name}: its text stands {text.count(mutant.old)} times in {mutant.file}")
    return text.replace(mutant.old, mutant.new)


@contextmanager
def copy() -> Iterator[Path]:
    """A copy of the repository to break."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        target = Path(folder) / "apiary"
        target.mkdir()
        for name in FOLDERS:
            if (REPOSITORY / name).exists():
                ignored = shutil.ignore_patterns("__pycache__", "target", "reports")
                shutil.copytree(REPOSITORY / name, target / name, symlinks=True, ignore=ignored)
        for path in REPOSITORY.glob("*.*"):
            if path.is_file():
                shutil.copy(path, target)
        yield target


def tests(folder: Path, names: Iterable[str]) -> tuple[int, str]:
    """Run tests in a copy: pytest's exit code and the line that says what failed."""
    command = [
        sys.executable, "-m", "pytest", "-n", "0", "-x", "-q", "-m", "not long", "-p", "no:cacheprovider",
        "--no-header", "--tb=line", *names,
    ]  # fmt: skip
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(folder)}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    lines = (result.stdout + result.stderr).strip().splitlines()
    # A test that could not be set up has not looked at the mutant.
    if any(line.startswith("ERROR ") for line in lines) and result.returncode == FAILED:
        return NO_ANSWER, next(line for line in lines if line.startswith("ERROR "))
    told = [line for line in lines if line.startswith("FAILED ")] or lines[-1:] or [""]
    return result.returncode, told[-1]


def hunt(mutant: Mutant) -> tuple[str, str, float]:
    """`killed`, `survived` or `broken`, the last line, and how long it took."""
    started = time.monotonic()
    with copy() as folder:
        path = folder / mutant.file
        path.write_text(patched(path.read_text("utf-8"), mutant), "utf-8")
        code, said = tests(folder, [mutant.found_by])
    verdict = {FAILED: "killed", PASSED: "survived"}.get(code, "broken")
    return verdict, said, time.monotonic() - started


def _line(mutant: Mutant, verdict: str, said: str, seconds: float) -> str:
    note = "" if verdict == "killed" else f": {said}"
    return f"| {mutant.name} | {verdict}{note} | `{mutant.found_by}` | {seconds:.0f} |"


def _report(lines: dict[str, str]) -> None:
    """Write what was found now over what was found before; who was not hunted again keeps the line of last time."""
    before = REPORT.read_text("utf-8").splitlines() if REPORT.exists() else []
    known = {line.split(" | ")[0].removeprefix("| "): line for line in before if line.startswith("| ")} | lines
    kept = [known[mutant.name] for mutant in MUTANTS if mutant.name in known]
    killed = sum("| killed |" in line for line in kept)
    head = ["# Mutants", "", f"Written by `make mutants`: {killed} of {len(MUTANTS)} killed.", ""]
    REPORT.parent.mkdir(exist_ok=True)
    table = ["| mutant | verdict | found by | seconds |", "| --- | --- | --- | --- |", *kept]
    REPORT.write_text("\n".join([*head, *table, ""]), "utf-8")


def main(arguments: Sequence[str]) -> int:
    """Hunt all mutants, or a sample; 0 if each was found."""
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("--sample", type=int, help="only some, chosen by the seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", help="only those whose name holds one of these texts")
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS), help="only those of these parts")
    parser.add_argument("--no-report", action="store_true")
    options = parser.parse_args(arguments)
    chosen = [mutant for part in options.part for mutant in PARTS[part]]
    chosen = [mutant for mutant in chosen if not options.only or any(text in mutant.name for text in options.only)]
    if options.sample:
        chosen = random.Random(options.seed).sample(chosen, options.sample)
    with copy() as folder:
        code, said = tests(folder, sorted({mutant.found_by for mutant in chosen}))
    if code != PASSED:
        print(f"the tests fail without a mutant: {said}")
        return 1
    results = []
    with ThreadPoolExecutor(2) as pool:
        for mutant, result in zip(chosen, pool.map(hunt, chosen), strict=True):
            print(f"{mutant.name}: {result[0]} ({result[1]})", flush=True)
            results.append((mutant, result))
            if not options.no_report:
                _report({mutant.name: _line(mutant, *result)})
    lines = {mutant.name: _line(mutant, *result) for mutant, result in results}
    killed = sum(verdict == "killed" for _, (verdict, _, _) in results)
    print("\n".join([*lines.values(), "", f"{killed} of {len(results)} killed"]))
    return 0 if killed == len(results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
