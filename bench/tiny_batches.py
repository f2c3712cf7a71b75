"""100,000 tiny batches through gate, ledger and load, against the floor of reading the same files.

`python -m bench.tiny_batches [--batches 100000] [--report FILE]`. Seconds of the clock and of the processor; on a busy
machine only their ratio to the floor of the same run says something. Does not belong here: whether it is right.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import duckdb

from pipelines.store import FolderStore
from pipelines.warehouse import gate, landing, load
from tests.warehouse_part.batches import MemoryStore, batch, record, turn

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
    """One row each, from many devices."""
    for number in range(batches):
        memory = MemoryStore()
        batch(memory, {"llm_turns": [turn(number)]}, device=record(number % devices), seq=number // devices + 1)
        for key, body in memory.objects.items():
            path = store.root / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(body)


def floor(store: FolderStore) -> None:
    """Open and read every file, and nothing else."""
    for entry in store.list(landing.ROOT):
        store.get(entry.key)


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
    rows = [("open and read every file", *bare), ("list, gate, ledger and load", *whole)]
    lines = [
        "# Tiny batches", "", f"{batches:,} batches of one row from {devices} devices, in a folder store.",
        f"Goal for 100,000: {GOAL_SECONDS:.0f} s on two cores of their own.", "",
        "| what | seconds | seconds of the processor | microseconds of it for a batch |", "|---|---|---|---|",
        *(f"| {name} | {clock:.1f} | {used:.1f} | {used / batches * 1e6:.0f} |" for name, clock, used in rows), "",
        f"Ratio to the floor: {whole[1] / bare[1]:.1f} of the processor, {whole[0] / bare[0]:.1f} of the clock.",
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
