"""One side of a benchmark in a process of its own: `python -m bench.ratios.child MODULE FUNCTION FOLDER`.

Prints what the function cost, in processor seconds of this process and of those that it started and waited for, and the
sums that it found. A function that measures something else gives both. Does not belong here: comparing (measure.py).
"""

import importlib
import json
import resource
import sys
from pathlib import Path


def used() -> float:
    """Processor seconds of this process and of its children that have ended."""
    found = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in found)


def main(module: str, function: str, folder: str) -> None:
    """Run one side."""
    work = getattr(importlib.import_module(module), function)
    begun = used()
    told = work(Path(folder))
    sums, cost = told if isinstance(told, tuple) else (told, used() - begun)
    print(json.dumps({"cost": cost, "sums": sums}))


if __name__ == "__main__":
    # As on a device: pyarrow imports both wherever they are installed.
    if sys.argv[1] in ("bench.ratios.device", "bench.ratios.idle", "bench.ratios.memory", "bench.ratios.own"):
        for name in ("numpy", "pandas"):
            sys.modules[name] = None  # type: ignore[assignment]
    main(*sys.argv[1:])
