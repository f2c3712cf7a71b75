"""A disk that is really full: a small file system of its own, filled to the last byte.

Does not belong here: full disks at each step of device and ingest (bench/torture).
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
UNSHARE = shutil.which("unshare")
OWN_MOUNTS = (
    UNSHARE is not None and not subprocess.run([UNSHARE, "-rm", "true"], capture_output=True, check=False).returncode
)
PROGRAM = """
import os, shutil, subprocess, sys
from pathlib import Path
from pipelines.warehouse.opening import make_openable
folder = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(folder)], check=True)
warehouse = folder / "w.duckdb"
dying = '''
import duckdb, os, sys
connection = duckdb.connect(sys.argv[1])
connection.execute("SET checkpoint_threshold = '1GB'")
connection.execute("CREATE TABLE kept AS SELECT range AS number FROM range(200000)")
os._exit(0)
'''
subprocess.run([sys.executable, "-c", dying, str(warehouse)], check=True)
assert (folder / "w.duckdb.wal").exists()
with (folder / "ballast").open("wb") as file:
    os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(folder).free)
assert make_openable(warehouse) == []
(folder / "ballast").unlink()
assert make_openable(warehouse) == []
import duckdb
assert duckdb.connect(str(warehouse)).execute("SELECT count(*) FROM kept").fetchone() == (200000,)
"""


@pytest.mark.skipif(not OWN_MOUNTS, reason="this system lets nobody have a file system of their own")
def test_a_log_that_waits_for_room_is_not_set_aside(tmp_path: Path) -> None:
    command = [str(UNSHARE), "-rm", sys.executable, "-c", PROGRAM, str(tmp_path)]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
