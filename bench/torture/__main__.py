"""`make torture`: rounds until enough processes died and enough records went through; nothing lost, doubled, invented.

Does not belong here: a round (rounds.py), the totals (report.py).
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from bench.torture import lives, report
from bench.torture.rounds import Round

DISK = "1g"
INSIDE = "--inside"


def main(arguments: list[str]) -> int:
    """Run rounds; 0 if all came out right."""
    parser = argparse.ArgumentParser(prog="make torture", description=__doc__)
    parser.add_argument("--seed", type=int, help="of the first round; the next round has the next number")
    parser.add_argument("--rounds", type=int, help="how many (default: until the goal of the totals is reached)")
    parser.add_argument("--deaths", type=int, default=350, help="processes that die in each round")
    parser.add_argument("--records", type=int, default=180_000, help="records written in each round")
    parser.add_argument("--minutes", type=float, help="begin no round after that time")
    parser.add_argument("--no-report", action="store_true", help="leave bench/reports as it is")
    parser.add_argument("--keep", type=Path, help="keep a round that went wrong here")
    parser.add_argument(INSIDE, action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if not options.inside:
        code = _inside_own_mounts(arguments)
        if code is not None:
            return code
    lives.preload()
    seed = random.SystemRandom().randrange(1 << 31) if options.seed is None else options.seed
    return report.run(options, seed, lambda folder, number, hits: _round(options, folder, number, hits))


def _inside_own_mounts(arguments: list[str]) -> int | None:
    """Start again where a file system of our own can be made small enough to run full; None if that is impossible."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-rm", "true"], capture_output=True, check=False).returncode:
        return None
    command = [unshare, "-rm", sys.executable, "-m", "bench.torture", INSIDE, *arguments]
    return subprocess.run(command, check=False).returncode


def _round(options: argparse.Namespace, folder: Path, seed: int, hits: Counter[str]) -> Round:
    disk = folder / "disk"
    disk.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", str(disk)]
    has_small_disk = options.inside and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    return Round(
        folder, seed=seed, deaths=options.deaths, records=options.records, hits=hits, has_small_disk=has_small_disk
    )


if __name__ == "__main__":
    os.environ.pop("APIARY_TENANT_KEY", None)
    tempfile.tempdir = "/dev/shm" if Path("/dev/shm").is_dir() and not os.environ.get("TMPDIR") else None
    sys.exit(main(sys.argv[1:]))
