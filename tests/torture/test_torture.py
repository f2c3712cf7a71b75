"""The short form of `make torture`: a live writer, the real device program and the real ingest under kills and faults.

Does not belong here: the long form, which adds its rounds up in bench/reports (make torture).
"""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.services

REPOSITORY = Path(__file__).resolve().parents[2]


def torture(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench.torture", "--no-report", "--rounds", "1", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=600)


def test_nothing_is_lost_doubled_or_invented() -> None:
    """Tests 1, 78, in short: a round of lives that end at any moment; `make torture` adds rounds up."""
    result = torture("--seed", "20261120", "--deaths", "25", "--records", "4000")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "lost 0, doubled 0, phantom 0" in result.stdout
    assert "seed 20261120" in result.stdout


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_nothing_is_lost_doubled_or_invented_in_a_long_round(seed: int) -> None:
    result = torture("--seed", str(seed), "--deaths", "350", "--records", "100000")
    assert result.returncode == 0, result.stdout + result.stderr
