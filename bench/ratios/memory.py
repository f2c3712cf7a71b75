"""B3: how much memory a device takes on a backlog and on a line of hundreds of megabytes.

Does not belong here: how fast it is (device.py).
"""

import json
import resource
import sys
from pathlib import Path

from bench.ratios import device
from bench.ratios import home as homes

LIMIT_MB = 150


def prepare_backlog(folder: Path, megabytes: float) -> dict[str, int]:
    """A home with so many megabytes of logs, none of them read; its sums."""
    return _kept(folder, device.prepare_backlog(folder, megabytes))


def prepare_long_line(folder: Path, megabytes: float) -> dict[str, int]:
    """A home in which one line has so many megabytes: streaming text between turns."""
    sums = device.prepare_backlog(folder, 0.1)
    log = min((folder / "hive").rglob("events.jsonl"))
    text = b"The pears go out on Friday. " * 36_000  # about a megabyte
    with log.open("ab") as file:
        file.write(b'{"type": "llm_text_delta", "data": {"snapshot": "')
        for _ in range(int(megabytes)):
            file.write(text)
        file.write(b'"}, "timestamp": "2026-05-04T10:15:30.000001"}\n')
        file.write(homes.one_turn(log.parents[0].name, 0).encode() + b"\n")
    added = json.loads(homes.one_turn(log.parents[0].name, 0))["data"]
    sums["turns"] += 1
    for name in ("input_tokens", "output_tokens"):
        sums[name] += added[name]
    return _kept(folder, sums)


def _kept(folder: Path, sums: dict[str, int]) -> dict[str, int]:
    (folder / "sums.json").write_text(json.dumps(sums), "utf-8")
    return sums


def ship_backlog(folder: Path) -> tuple[dict[str, int], float]:
    """Ship all of it; the most memory that the process held, in MB."""
    sums = device.ship_backlog(folder)
    return sums, _most_held()


def _most_held() -> float:
    """Megabytes. On Linux `ru_maxrss` begins with what the process held that started this one."""
    status = Path("/proc/self/status")
    if status.exists():
        (kilobytes,) = (line.split()[1] for line in status.read_text("utf-8").splitlines() if line.startswith("VmHWM"))
        return int(kilobytes) / 1_000
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1_000_000 if sys.platform == "darwin" else 1_000)


def limit(folder: Path) -> tuple[dict[str, int], float]:
    """What it may hold."""
    sums: dict[str, int] = json.loads((folder / "sums.json").read_text("utf-8"))
    return sums, LIMIT_MB
