"""100,000 tiny batches through gate, ledger and load, against the floor of reading the same files.

`python -m bench.tiny_batches [--batches 100000] [--report FILE]`. Seconds of the clock and of the processor; on a busy
machine only their ratio to the floor of the same run says something. Does not belong here: whether it is right.
"""

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import duckdb

from pipelines.contract.wire import LLM_TURNS
from pipelines.device.blocks import pack
from pipelines.device.spool import to_parquet
from pipelines.store import FolderStore
from pipelines.warehouse import gate, landing, load
from tests.warehouse_part.batches import START, MemoryStore, batch, record, turn

GOAL_SECONDS = 60.0


def measured(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of the clock, and of the processor here and in children that have ended."""
    begun, used = time.monotonic(), _used()
    work()
    return time.monotonic() - begun, _used() - used


def _used() -> float:
    found = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in found)


def fleet(store: FolderStore, batches: int, devices: int) -> None:
    """One row each, from many devices, in files as devices write them."""
    for number in range(batches):
        memory = MemoryStore()
        staged = turn(number, occurred_at=START.isoformat())
        data, sums = to_parquet(LLM_TURNS, [pack("llm_turns", [staged])])
        place = {"device": record(number % devices), "seq": number // devices + 1}
        batch(memory, {"llm_turns": data}, **place, change=partial(claim, sums))
        for key, body in memory.objects.items():
            path = store.root / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(body)


def claim(sums: dict[str, int], manifest: dict[str, Any]) -> None:
    """Have a manifest say of its only object what a device's says."""
    manifest["objects"][0].update(sums)


def floor(store: FolderStore) -> None:
    """Open and read every file, and nothing else."""
    for entry in store.list(landing.ROOT):
        store.get(entry.key)


def seconds_of(rows: list[tuple[str, float, float]], batches: int) -> list[str]:
    """A table of the floor and of the whole, and their ratio."""
    (_, *bare), (_, *whole) = rows
    return [
        "| what | seconds | seconds of the processor | microseconds of it for a batch |", "|---|---|---|---|",
        *(f"| {name} | {clock:.1f} | {used:.1f} | {used / batches * 1e6:.0f} |" for name, clock, used in rows), "",
        f"Ratio to the floor: {whole[1] / bare[1]:.1f} of the processor, {whole[0] / bare[0]:.1f} of the clock.",
        f"The machine has {os.cpu_count()} cores; {os.getloadavg()[0]:.1f} programs wanted them in the last minute.",
    ]  # fmt: skip


def run(batches: int, devices: int) -> str:
    """Measure, and say so in Markdown."""
    with tempfile.TemporaryDirectory() as folder:
        store = FolderStore(Path(folder) / "store")
        fleet(store, batches, devices)
        bare = measured(lambda: floor(store))
        with duckdb.connect(str(Path(folder) / "apiary.duckdb")) as connection:
            load.prepare(connection)
            done = load.Loaded()

            def work() -> None:
                nonlocal done
                done = load.load(connection, store, landing.pending(store, load.known_manifests(connection)))
                gate.shared().close()  # the child's time counts once it has ended

            whole = measured(work)
        if (done.loaded, done.rows_new) != (batches, batches):
            raise SystemExit(f"loaded {done.loaded} batches and {done.rows_new} rows of {batches}")
    lines = [
        "# Tiny batches", "", f"{batches:,} batches of one row from {devices} devices, in a folder store.",
        f"Goal for 100,000: {GOAL_SECONDS:.0f} s on two cores of their own.", "",
        *seconds_of([("open and read every file", *bare), ("list, gate, ledger and load", *whole)], batches),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=100_000)
    parser.add_argument("--devices", type=int, default=150)
    parser.add_argument("--report", type=Path)
    options = parser.parse_args()
    text = run(options.batches, options.devices)
    if options.report:
        options.report.write_text(text, "utf-8")
    print(text)


if __name__ == "__main__":
    main()
