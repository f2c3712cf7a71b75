"""What the device part promises the machine it runs on: its disks, its sleep, its limits, its other users."""

from __future__ import annotations

import errno
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.device.errors import DeviceError
from pipelines.errors import UsageError
from pipelines.home import Home
from tests.device.driving import LATER, Device, append, device, dump, granted, queen_folder, turn

ROOT = Path(__file__).parents[2]

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
    """Test 70: no file of a home, no socket, no state; only what the enrolment itself wrote is there."""
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
    """Test 75: with an umask of zero, nothing of ours can be read by anybody else."""
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
    """Test 69: counted, not read, and the rest goes on."""
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
    """Tests 5, 6: at the spool's files, at fsync, at a source: no crash loop, and everything arrives once it works."""
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


@pytest.mark.parametrize("count", [120, pytest.param(10_000, marks=pytest.mark.long)])
def test_many_files_that_grow_are_read_with_a_handful_of_descriptors(tmp_path: Path, count: int) -> None:
    """Tests 6, 25: with hardly any descriptors left it still works: none is kept. Each file is appended to while all
    are read, and each gets its turn in that pass."""
    hive = tmp_path / "hive"

    def write(start: int) -> None:
        for number in range(count):
            session = f"session_20260504_10{number // 60 % 60:02}{number % 60:02}_{number:08x}"
            append(queen_folder(hive, session) / "events.jsonl", dump(turn(start + number, session=session)))

    write(0)
    made = granted(tmp_path / "apiary", hive)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len([*Path("/proc/self/fd").iterdir()]) if Path("/proc/self/fd").exists() else 60
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 20, before[1]))
    try:
        writer = threading.Thread(target=write, args=(count,))
        writer.start()
        made.ship(hive)
        iterations = {row["iteration"] for row in made.delivered("llm_turns")}
        writer.join()
        made.ship(hive)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert {*range(count)} <= iterations
    assert len(made.delivered("llm_turns", newest=False)) == 2 * count


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
    """Tests 8, 12: stopped and continued; a second one is told that another is at work, and a kill frees the lock."""
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
    """Test 9: one bit of a sealed file flips before it is sent: it is sealed anew from its rows."""
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
    """Test 7: another epoch, everything read again; the warehouse knows each record by its id."""
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


@pytest.fixture(scope="module")
def once_shipped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A home of 30 turns that were delivered and one that was not, and the device that delivered them."""
    folder = tmp_path_factory.mktemp("once")
    hive = folder / "hive"
    append(queen_folder(hive) / "events.jsonl", dump(*map(turn, range(30))))
    made = granted(folder / "apiary", hive)
    made.ship(hive)
    append(queen_folder(hive) / "events.jsonl", dump(turn(30)))
    return hive, made.home.root


@pytest.mark.parametrize("seeds", [range(8), pytest.param(range(8, 208), marks=pytest.mark.long)], ids=["some", "200"])
def test_whatever_bytes_of_the_state_flip_nothing_is_lost_or_doubled(
    once_shipped: tuple[Path, Path], tmp_path: Path, seeds: range
) -> None:
    """Test 7: one byte or many, anywhere: it goes on, or says what to do and then goes on; each record has one story.
    A number that became another one inside a sound file may need a person: at most two states of a hundred."""
    hive, original = once_shipped
    stuck, said = [], ""
    for seed in seeds:
        rng = random.Random(seed)
        root = shutil.copytree(original, tmp_path / str(seed))
        made = Device(Home(root), (root / "store").as_uri())
        data = bytearray(made.state_file.read_bytes())
        for place in rng.sample(range(len(data)), rng.choice((1, 16, 256))):
            data[place] ^= rng.randrange(1, 256)
        made.state_file.write_bytes(data)
        for _ in range(3):
            try:
                made.ship(hive)
                break
            except UsageError:
                made.grant([hive])
            except DeviceError as error:
                said = str(error)
        else:
            stuck.append((seed, said))
        stories = {(row["record_id"], row["iteration"]) for row in made.delivered("llm_turns", newest=False)}
        iterations = sorted(iteration for _, iteration in stories)
        assert iterations == [*range(31)] or stuck[-1:] == [(seed, said)], f"seed {seed}"
        shutil.rmtree(root)
    assert len(stuck) <= len(seeds) // 50, stuck
