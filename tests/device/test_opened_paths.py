"""What the system itself saw opened under an agent's home: the names of the list, and nothing of what is private.

Python's own audit (test_collect.py) does not see what a library opens; strace does, folders and failed tries included.
Does not belong here: what was read from those files.
"""

import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.device.driving import LAYOUTS, SESSION, append, granted, simulated
from tests.device.test_collect import FORBIDDEN, NAMES

OPENED = re.compile(r'\b(?:openat|open|creat|openat2)\((?:[^",]*, )?"([^"]*)"')
PROGRAM = """
import sys
from pathlib import Path
from pipelines.home import Home
from tests.device.driving import Device
device, hive = Device(Home(Path(sys.argv[1])), sys.argv[2]), Path(sys.argv[3])
device.preview(hive)
device.ship(hive)
device.withdraw()
device.grant([hive], history="exclude")
device.ship(hive)
"""
BESIDE = {"progress.db-wal", "progress.db-shm", "progress.db-journal"}
"""SQLite's own, of a database that somebody has open."""
TRAPS = (
    "secrets/credential_key", "credentials/store.json", "configuration.json", "colonies/leads/tracker/tracker.db",
    "colonies/leads/tracker/tracker.db-wal", f"sessions/{SESSION}/conversations/parts/1.json",
    f"sessions/{SESSION}/artifacts/a.json", "failed_requests/a.json", "memories/global/user.md",
    f"queens/q/sessions/{SESSION}/data/events.jsonl", "llm_logs/1.jsonl", "event_logs/1.jsonl",
)  # fmt: skip


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_the_system_saw_nothing_else_opened(tmp_path: Path) -> None:
    home = tmp_path / "hive"
    simulated(home, LAYOUTS[1])
    for trap in TRAPS:
        append(home / trap, b"{}")
    folder = home / "colonies" / "leads" / "data"
    folder.mkdir(parents=True, exist_ok=True)
    trace = tmp_path / "trace"
    made = granted(tmp_path / "apiary", home)
    with closing(sqlite3.connect(folder / "progress.db")) as live:
        live.execute("PRAGMA journal_mode=WAL")
        live.execute("CREATE TABLE tasks (id TEXT, status TEXT)")
        live.execute("INSERT INTO tasks VALUES ('1', 'pending')")
        live.commit()
        subprocess.run(
            ["strace", "-f", "-s", "4096", "-e", "trace=file", "-o", str(trace), sys.executable, "-c", PROGRAM,
             str(made.home.root), made.store_url, str(home)],
            check=True, capture_output=True, cwd=Path(__file__).parents[2],
        )  # fmt: skip
    paths = [Path(path) for path in OPENED.findall(trace.read_text("utf-8", "replace")) if path.startswith(f"{home}/")]
    opened = {path.relative_to(home) for path in paths}
    files = {path for path in opened if not (home / path).is_dir()}
    assert {path.name for path in files} >= {"events.jsonl", "meta.json", "progress.db"}, "strace saw the reading"
    assert {path.name for path in files} <= NAMES | BESIDE
    assert {part for path in opened for part in path.parts if part in FORBIDDEN} == set()
    assert [path for path in opened if "tracker.db" in path.name] == []
    assert (home / "colonies/leads/tracker/tracker.db").exists()
