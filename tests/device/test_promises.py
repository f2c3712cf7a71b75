"""What the device part promises the machine it runs on; and which fault tests of the delivery protocol stand where.

Numbers are those of the protocol's list of fault and abuse tests.
"""

from __future__ import annotations

import errno
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.device.errors import DeviceError
from pipelines.errors import UsageError
from tests.device.driving import LATER, Device, append, device, dump, granted, queen_folder, turn

ROOT = Path(__file__).parents[2]
# Of 1-44 and 64-75, those that concern the device. Elsewhere: 1-4 and 10 in tests/torture and bench, 11, 43, 44, 58 and
# 72 in the warehouse's tests, 74 in tests/contract.
DEVICE = {5, 6, 7, 8, 9, 12, 14, 18, 23, 27, 28, 29, 31, 32, 33, 34, 35, 36, 37, 39, 40, 41, 64, 65, 68, 69, 70, 71, 75}


def test_the_fault_tests_that_concern_the_device_are_here() -> None:
    """A number in the docstring of a test says which of the protocol's tests it is."""
    found: set[int] = set()
    for path in [*Path(__file__).parent.glob("test_*.py"), *(ROOT / "tests" / "torture").glob("test_*.py")]:
        for text in re.findall(r'"""(\d+(?:, \d+)*)\b', path.read_text("utf-8")):
            found |= {int(number) for number in text.split(", ")}
        module = re.search(r"tests (\d+) to (\d+) of the delivery protocol", path.read_text("utf-8"))
        if module:
            found |= set(range(int(module[1]), int(module[2]) + 1))
    print(f"covered here: {sorted(found)}")  # noqa: T201
    assert found >= DEVICE, sorted(DEVICE - found)


UNSET = """
import sys, time
from pathlib import Path
home, hive = Path(sys.argv[1]), Path(sys.argv[2])
from pipelines import cli
seen = []
def listen(event, values):
    if event in ("open", "os.listdir", "os.scandir", "sqlite3.connect") and str(hive) in str(values[0]):
        seen.append((event, str(values[0])))
    if event.startswith("socket.") and event != "socket.gethostname":
        seen.append((event, ""))
sys.addaudithook(listen)
for hour in range(24 * 4):  # a timer that fires four times an hour, for a day
    assert cli.main(["device", "ship", "--once"]) == 2
cli.main(["device", "consent", "status"])
print(seen, sorted(path.name for path in home.rglob("*") if path.is_file()))
"""


def test_without_consent_a_day_of_shippings_opens_makes_and_asks_nothing(tmp_path: Path) -> None:
    """70: no file of a home, no socket, no state; only what the enrolment itself wrote is there."""
    hive = tmp_path / "hive"
    append(queen_folder(hive) / "events.jsonl", dump(turn(1)))
    made = device(tmp_path / "apiary")
    before = sorted(path.name for path in made.home.root.rglob("*") if path.is_file())
    environment = {
        **os.environ, "APIARY_HOME": str(made.home.root), "HIVE_HOME": str(hive), "APIARY_STORE": "s3://lake/x",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    }  # fmt: skip
    arguments = [sys.executable, "-c", UNSET, str(made.home.root), str(hive)]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"[] {before}"


def test_whatever_the_umask_nobody_else_can_read_what_is_kept(tmp_path: Path) -> None:
    """75"""
    hive = tmp_path / "hive"
    append(queen_folder(hive) / "events.jsonl", dump(turn(1)))
    store = tmp_path / "store"
    old = os.umask(0)
    try:
        made = granted(tmp_path / "apiary", hive, store=store)
        store.write_text("")
        with pytest.raises(DeviceError):
            made.ship(hive)
        with made.state():  # its log and index are there while it is open
            modes = {path: path.stat().st_mode & 0o777 for path in made.home.root.rglob("*")}
        store.unlink()
        made.ship(hive)
        modes |= {path: path.stat().st_mode & 0o777 for path in made.home.root.rglob("*")}
    finally:
        os.umask(old)
    open_to_others = {path.name: oct(mode) for path, mode in modes.items() if mode & 0o077}
    assert open_to_others == {}
    assert len(modes) > 8


def test_pipes_links_and_folders_in_the_place_of_files_are_passed_over_and_do_not_hang(tmp_path: Path) -> None:
    """69: counted, not read, and the rest goes on."""
    hive, secret = tmp_path / "hive", tmp_path / "secret"
    secret.write_bytes(dump(turn(9)))
    append(queen_folder(hive) / "events.jsonl", dump(turn(1)))
    folder = queen_folder(hive, LATER)
    os.mkfifo(folder / "events.jsonl")
    (folder / "runs.jsonl").symlink_to(secret)
    (folder / "meta.json").mkdir()
    (folder / "state.json").symlink_to("/dev/zero")
    made = granted(tmp_path / "apiary", hive)
    began = time.monotonic()
    made.ship(hive)
    assert time.monotonic() - began < 20
    assert len(made.delivered("llm_turns")) == 1
    assert {row["outcome"] for row in made.sources() if row["outcome"] != "read"} == {"unreadable"}


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS, errno.EMFILE, errno.ENOSPC, errno.EACCES])
def test_a_disk_that_fails_is_said_in_one_line_and_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """5, 6: at the spool's files, at fsync, at a source: no crash loop, and everything arrives once it works."""
    hive = tmp_path / "hive"
    append(queen_folder(hive) / "events.jsonl", dump(*map(turn, range(4))))
    made = granted(tmp_path / "apiary", hive)
    really_open, really_fsync = os.open, os.fsync

    def fails(wanted: str, really: Callable[..., Any]) -> Callable[..., Any]:
        def call(first: Any, *rest: Any, **named: Any) -> Any:
            if wanted in str(first) or wanted == "fsync":
                raise OSError(number, os.strerror(number))
            return really(first, *rest, **named)

        return call

    for name, function in (
        ("open", fails(str(made.home.device / "spool"), really_open)),
        ("fsync", fails("fsync", really_fsync)),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, function)
            with pytest.raises(DeviceError, match="ship again"):
                made.ship(hive)
    append(queen_folder(hive) / "events.jsonl", dump(turn(8)))
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fails(str(hive), really_open))
        assert [problem for problem in made.ship(hive).problems if "could not be read" in problem]
    append(queen_folder(hive) / "events.jsonl", dump(turn(9)))
    made.ship(hive)
    assert len(made.delivered("llm_turns", newest=False)) == 6


def test_ten_thousand_files_are_read_with_a_handful_of_descriptors(tmp_path: Path) -> None:
    """6: with hardly any descriptors left it still works: none is kept."""
    hive = tmp_path / "hive"
    for number in range(120):
        session = f"session_20260504_10{number // 60:02}{number % 60:02}_0a1b2c3d"
        append(queen_folder(hive, session) / "events.jsonl", dump(turn(number, session=session)))
    made = granted(tmp_path / "apiary", hive)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len([*Path("/proc/self/fd").iterdir()]) if Path("/proc/self/fd").exists() else 60
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 20, before[1]))
    try:
        made.ship(hive)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert len(made.delivered("llm_turns")) == 120


SHIP = """
import sys; from pathlib import Path
from tests.device.driving import Device
from pipelines.device import lines, spool
from pipelines.home import Home
lines.CHUNK = 4000; spool.MAX_ROWS = 100
print("ready", flush=True)
Device(Home(Path(sys.argv[1])), sys.argv[2]).ship(Path(sys.argv[3]))
"""


def start(made: Device, hive: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", SHIP, str(made.home.root), made.store_url, str(hive)], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, cwd=ROOT,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_a_machine_that_slept_goes_on_where_it_was(tmp_path: Path) -> None:
    """8, 12: stopped and continued; a second one is told that another is at work, and a kill frees the lock."""
    hive = tmp_path / "hive"
    append(queen_folder(hive) / "events.jsonl", dump(*map(turn, range(2000))))
    made = granted(tmp_path / "apiary", hive)
    process = start(made, hive)
    time.sleep(0.3)
    process.send_signal(signal.SIGSTOP)
    is_at_work = process.poll() is None and (made.home.device / "lock").exists()
    if is_at_work:
        with pytest.raises(DeviceError, match=r"another shipping|cannot be written"):
            made.ship(hive)
    process.send_signal(signal.SIGCONT)
    process.communicate(timeout=120)
    assert process.returncode == 0
    killed = start(made, hive)
    killed.kill()
    killed.communicate()
    made.ship(hive)
    assert len(made.delivered("llm_turns", newest=False)) == 2000
    assert len({manifest["epoch"] for manifest in made.manifests()}) == 1


def test_a_spool_file_that_changed_on_disk_is_never_sent(tmp_path: Path) -> None:
    """9: one bit of a sealed file flips before it is sent: it is sealed anew from its rows."""
    hive, store = tmp_path / "hive", tmp_path / "store"
    append(queen_folder(hive) / "events.jsonl", dump(*map(turn, range(4))))
    made = granted(tmp_path / "apiary", hive, store=store)
    store.write_text("")
    with pytest.raises(DeviceError):
        made.ship(hive)
    store.unlink()
    victim = next((made.home.device / "spool" / "ready").glob("*llm_turns*"))
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    made.ship(hive)
    assert len(made.delivered("llm_turns", newest=False)) == 4


@pytest.mark.parametrize("damage", ["truncated", "nul", "flipped"])
def test_a_damaged_state_is_set_aside_and_nothing_is_lost(tmp_path: Path, damage: str) -> None:
    """7: another epoch, everything read again; the warehouse knows each record by its id."""
    hive = tmp_path / "hive"
    append(queen_folder(hive) / "events.jsonl", dump(*map(turn, range(30))))
    made = granted(tmp_path / "apiary", hive)
    made.ship(hive)
    for beside in made.home.device.glob("state.db-*"):
        beside.unlink()
    data = bytearray(made.state_file.read_bytes())
    if damage == "truncated":
        data = data[:100]
    elif damage == "nul":
        data = bytearray(len(data))
    else:
        for place in range(0, len(data), 7):
            data[place] ^= 0x55
    made.state_file.write_bytes(data)
    append(queen_folder(hive) / "events.jsonl", dump(turn(99)))
    with pytest.raises((DeviceError, UsageError)):
        made.ship(hive)  # it says so; consent has to be given again, as nobody can tell that it was given
    made.grant([hive])
    made.ship(hive)
    assert len(made.delivered("llm_turns")) == 31
    assert len({manifest["epoch"] for manifest in made.manifests()}) == 2
