"""The short form of `make power-loss`: the disk forgets what was not synced, and nothing that was committed is gone.

Does not belong here: the long form (make power-loss).
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.services

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("states", [20, pytest.param(1000, marks=pytest.mark.long)])
def test_no_committed_batch_is_lost_with_the_power(states: int) -> None:
    """Test 4: writes that no fsync has followed are dropped or stand in another order."""
    command = [sys.executable, "-m", "bench.power_loss", "--no-report", "--seed", "7", "--states", str(states)]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=3600)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{states} crash states, 0 wrong" in result.stdout
