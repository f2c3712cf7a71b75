"""B6: batches of one row, loaded and merely read.

Does not belong here: 100,000 of them (bench/tiny_batches.py).
"""

from pathlib import Path

from bench import tiny_batches
from pipelines.store import FolderStore

DEVICES = 20


def prepare(folder: Path, batches: float) -> dict[str, int]:
    """So many batches of some devices."""
    tiny_batches.fleet(FolderStore(folder / "store"), int(batches), DEVICES)
    return {"batches": int(batches)}


def load(folder: Path) -> dict[str, int]:
    """From landing to wire, with gate, ledger and dedupe."""
    from bench.ratios import landing

    return {"batches": landing.load(folder)["rows"]}


def read(folder: Path) -> dict[str, int]:
    """The floor: every object listed, read and hashed."""
    store = FolderStore(folder / "store")
    tiny_batches.floor(store)
    return {"batches": sum(1 for _ in (folder / "store").rglob("m/*.json"))}
