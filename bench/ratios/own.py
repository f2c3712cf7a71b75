"""`apiary me` on a year of an owner's logs: read for the first time, and read again where sums are kept.

Does not belong here: how sides are measured (measure.py).
"""

import contextlib
import io
import json
import os
import shutil
from pathlib import Path

ZONE = "Europe/Berlin"


def prepare(folder: Path, megabytes: float) -> dict[str, int]:
    """A home with so many megabytes of logs, read once with what is kept of it; its sums."""
    from bench.ratios import home as homes
    from pipelines.device import unchanged

    sums = homes.write(folder / "hive", megabytes=megabytes)
    unchanged.CLOCK_TICK_NS = 0  # the home was written a moment ago
    for _ in range(2):
        _me(folder, "--keep")
    return {
        "turns": sums.turns + sums.steps, "input_tokens": sums.input_tokens, "output_tokens": sums.output_tokens,
    }  # fmt: skip


def read_first(folder: Path) -> dict[str, int]:
    """A call that knows nothing and keeps nothing."""
    shutil.rmtree(folder / "nothing", ignore_errors=True)
    return _me(folder, own="nothing")


def read_again(folder: Path) -> dict[str, int]:
    """A call after another one that kept its sums, with nothing new."""
    return _me(folder)


def scan(folder: Path) -> dict[str, int]:
    """The floor: every line of the same logs is read, and what tells of a turn parsed and summed."""
    import orjson

    turns = into = output = 0
    for path in (folder / "hive").rglob("*.jsonl"):
        is_events = path.name == "events.jsonl"
        with path.open("rb") as file:
            for line in file:
                if is_events and b'"llm_turn_complete"' not in line:
                    continue
                found = orjson.loads(line)
                usage = found["data"] if is_events else found
                turns += 1
                into += usage["input_tokens"]
                output += usage["output_tokens"]
    return {"turns": turns, "input_tokens": into, "output_tokens": output}


def _me(folder: Path, *options: str, own: str = "apiary") -> dict[str, int]:
    """`apiary me` in this process, as its entry point does it."""
    from pipelines.cli import main

    os.environ["APIARY_HOME"] = str(folder / own)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        if main(["me", "--json", "--period", "all", "--timezone", ZONE, "--home", str(folder / "hive"), *options]):
            raise SystemExit("apiary me failed")
    told = json.loads(said.getvalue())["totals"]["all"]
    return {name: told[name] for name in ("turns", "input_tokens", "output_tokens")}
