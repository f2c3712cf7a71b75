"""The floor of B2: a walk over the tree of a home, and nothing else is imported.

Does not belong here: the pass of a device over it (idle.py).
"""

import os
from pathlib import Path


def walk(folder: Path) -> dict[str, int]:
    """The floor: scan every folder and stat every file."""
    logs = 0
    waiting = [str(folder / "hive")]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                else:
                    entry.stat(follow_symlinks=False)
                    logs += entry.name == "events.jsonl"
    return {"logs": logs}
