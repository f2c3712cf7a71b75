"""Shipping: it may stop anywhere and start again, and every record has arrived exactly once."""

from __future__ import annotations

import hashlib
import os
import random
import resource
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.cli import main
from pipelines.device import limits, lines, ship, spool
from pipelines.device.errors import DeviceError
from pipelines.device.preview import preview
from pipelines.device.spool import Spool
from pipelines.device.state import State
from pipelines.errors import UsageError
from pipelines.simulate.homes import Layout
from pipelines.store import FolderStore, Put, StoreRefusedError, StoreRejectedError, StoreUnavailableError
from tests.device.driving import (
    LATER,
    OWN_TABLES,
    Device,
    append,
    dump,
    flat_folder,
    granted,
    queen_folder,
    simulated,
    step,
    tool,
    turn,
)

KEY = b"k" * 32  # one tenant's key: rows of two devices are compared whole


class KilledError(BaseException):
    """A process that ends here and now: nothing may catch it."""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    made = tmp_path / "hive"
    made.mkdir()
    return made


def small(home: Path) -> None:
    """A little of everything, with copies, torn lines and a database."""
    append(queen_folder(home) / "events.jsonl", dump(*map(turn, range(4))) + b'{"type": "llm_' + dump(turn(6)))
    append(queen_folder(home, LATER) / "events.jsonl", dump(turn(1), turn(2), turn(7, session=LATER)))
    folder = flat_folder(home)
    append(folder / "logs" / "tool_logs.jsonl", dump(*(step(n, tool_calls=[tool()]) for n in range(2))))
    append(flat_folder(home, LATER) / "logs" / "tool_logs.jsonl", dump(step(1), step(9)))
    (folder / "tasks.json").write_text('{"tasks": [{"id": 1, "status": "pending"}, {"id": 2, "status": "completed"}]}')


def content(made: Device) -> dict[tuple[str, str], Any]:
    """What was delivered of the agents. Raises if one record came twice with other content."""
    found: dict[tuple[str, str], Any] = {}
    for row in made.delivered(newest=False):
        if row["_table"] in OWN_TABLES:
            continue
        row.pop("observed_at", None)
        key = (row["_table"], row["record_id"])
        assert found.setdefault(key, row) == row, f"{key} was delivered twice with other content"
    return found


@contextmanager
def killed_at(call: int, patch: pytest.MonkeyPatch) -> Iterator[Callable[[], int]]:
    """End the process at the n-th boundary: around every transaction of the state, every put, every file."""
    seen = 0

    def boundary() -> None:
        nonlocal seen
        seen += 1
        if seen == call:
            raise KilledError

    really_step, really_put, really_write, really_finish = State.step, FolderStore.put, Spool._write, Spool.finish

    @contextmanager
    def step_(self: State) -> Iterator[None]:
        boundary()
        with really_step(self):
            yield
            boundary()
        boundary()

    def put(self: FolderStore, key: str, data: bytes) -> Any:
        boundary()
        done = really_put(self, key, data)
        boundary()  # stored, and the answer was lost
        return done

    def write(self: Spool, name: str, data: bytes) -> None:
        boundary()
        really_write(self, name, data)
        boundary()

    def finish(self: Spool, batch: Any) -> None:
        boundary()
        really_finish(self, batch)
        boundary()

    with patch.context() as inner:
        inner.setattr(State, "step", step_)
        inner.setattr(FolderStore, "put", put)
        inner.setattr(Spool, "_write", write)
        inner.setattr(Spool, "finish", finish)
        yield lambda: seen


def finish(made: Device, home: Path) -> None:
    made.ship(home)
    with made.state() as state:
        totals = state.totals()
    assert (totals["rows_staged"], totals["batches_waiting"]) == (0, 0)
    assert [path for path in (made.home.device / "spool").rglob("*") if path.is_file()] == []
    receipts = {path.name for path in (made.home.device / "receipts").iterdir()}
    sent = {entry.key.rpartition("/")[2] for entry in made.store.list("landing")}
    assert receipts == sent, "a receipt for every file that left, and for none that did not"
    chain = [(manifest["seq"], manifest["previous_manifest_sha256"]) for manifest in made.manifests()]
    assert [seq for seq, _ in chain] == [*range(1, len(chain) + 1)]


@pytest.mark.services
def test_killed_at_every_boundary_it_delivers_what_an_unbroken_run_does(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(home)
    monkeypatch.setattr(spool, "MAX_ROWS", 20)
    monkeypatch.setattr(lines, "CHUNK", 1400)
    whole = granted(tmp_path / "whole", home, key=KEY)
    with killed_at(0, monkeypatch) as boundaries:
        whole.ship(home)
        total = boundaries()
    expected = content(whole)
    assert len(expected) > 12
    assert total > 60
    killed = 0
    for call in range(1, total + 1):
        made = granted(tmp_path / f"killed-{call}", home, key=KEY)
        with killed_at(call, monkeypatch):
            try:
                made.ship(home)
            except KilledError:
                killed += 1
        finish(made, home)
        found = content(made)
        assert found.keys() == expected.keys(), call
        assert found == expected, call
    assert killed > 0.9 * total, "how rows fall into batches differs by a few from device to device"


@pytest.mark.parametrize("seed", range(3))
def test_killed_again_and_again_while_the_home_grows(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    kill_and_grow(tmp_path, home, monkeypatch, seed, rounds=12)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 140))
def test_killed_again_and_again_for_long(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    kill_and_grow(tmp_path, home, monkeypatch, seed, rounds=60)


def kill_and_grow(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, seed: int, *, rounds: int) -> None:
    rng = random.Random(seed)
    monkeypatch.setattr(spool, "MAX_ROWS", 7)
    monkeypatch.setattr(lines, "CHUNK", 700)
    made = granted(tmp_path / "apiary", home)
    path = queen_folder(home) / "events.jsonl"
    number, torn = 0, b""
    for _ in range(rounds):
        for _ in range(rng.randint(0, 6)):
            data = dump(turn(number))
            number += 1
            cut = rng.randrange(len(data)) if rng.random() < 0.3 else 0
            append(path, torn + data[:cut])
            torn = data[cut:] if cut else b""
            if not cut:
                append(path, data)
        if rng.random() < 0.2 and path.exists() and not torn:
            kept = path.read_bytes().splitlines(keepends=True)
            aside = append(path.with_name("aside"), b"".join(reversed(kept)))
            aside.replace(path)
        with killed_at(rng.randint(1, 40), monkeypatch):
            try:
                made.ship(home)
            except KilledError:
                continue
    append(path, torn)
    finish(made, home)
    iterations = sorted(row["iteration"] for row in content(made).values() if row["_table"] == "llm_turns")
    assert iterations == [*range(number)]


def test_a_process_killed_for_real_is_taken_up_again(tmp_path: Path, home: Path) -> None:
    """SIGKILL, with nothing of ours to clean up: at random moments of one shipping after another."""
    small(home)
    append(queen_folder(home) / "events.jsonl", dump(*map(turn, range(100, 3000))))
    made = granted(tmp_path / "apiary", home)
    program = (
        "import sys; from pathlib import Path; from tests.device.driving import Device\n"
        "from pipelines.home import Home\n"
        "from pipelines.device import lines, spool; lines.CHUNK = 20_000; spool.MAX_ROWS = 300\n"
        "print('ready', flush=True); Device(Home(Path(sys.argv[1])), sys.argv[2]).ship(Path(sys.argv[3]))"
    )
    command = [sys.executable, "-c", program, str(made.home.root), made.store_url, str(home)]
    rng = random.Random(5)
    for _ in range(4):
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as process:
            assert process.stdout is not None
            process.stdout.readline()
            try:
                process.wait(rng.uniform(0.02, 0.25))
            except subprocess.TimeoutExpired:
                process.kill()
    finish(made, home)
    turns = [row for row in content(made).values() if row["_table"] == "llm_turns"]
    assert len(turns) == 6 + 2900


# Stores --------------------------------------------------------------------------------------------------------------


def test_an_unreachable_store_loses_nothing_and_gets_everything_once_later(tmp_path: Path, home: Path) -> None:
    small(home)
    store = tmp_path / "store"
    made = granted(tmp_path / "apiary", home, store=store)
    store.write_text("a file in the way")
    for _ in range(2):
        with pytest.raises(DeviceError, match=r"waits? safely in the spool, the store is asked again from"):
            made.ship(home)
    append(queen_folder(home) / "events.jsonl", dump(turn(50)))
    store.unlink()
    finish(made, home)
    expected = granted(tmp_path / "other", home)
    expected.ship(home)
    assert content(made).keys() == content(expected).keys()
    rows = made.delivered("llm_turns", newest=False)
    assert len(rows) == len({row["record_id"] for row in rows})


def test_a_store_that_answers_late_is_asked_again_and_one_that_refuses_is_not(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(home)
    made = granted(tmp_path / "apiary", home)
    really, asked = FolderStore.put, 0
    trouble: type[Exception] = StoreRefusedError

    def put(self: FolderStore, key: str, data: bytes) -> Any:
        nonlocal asked
        asked += 1
        if trouble is StoreRefusedError or asked % 3:
            raise trouble("no")
        return really(self, key, data)

    monkeypatch.setattr(FolderStore, "put", put)
    with pytest.raises(DeviceError):
        made.ship(home)
    assert asked == 1
    trouble, asked = StoreUnavailableError, 0
    monkeypatch.setattr(limits, "PATIENCE_SECONDS", 1e6)
    slept: list[float] = []
    ship.ship(made.home, [home], store_url=made.store_url, sleep=slept.append, is_forced=True)
    assert slept
    assert all(0 <= pause <= limits.FIRST_DELAY_SECONDS * 2 for pause in slept)
    assert len(made.manifests()) == 2


def test_the_manifest_is_put_last(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(home)
    made = granted(tmp_path / "apiary", home)
    keys: list[str] = []
    really = FolderStore.put
    monkeypatch.setattr(FolderStore, "put", lambda self, key, data: (keys.append(key), really(self, key, data))[1])
    made.ship(home)
    assert [("/m/" in key) for key in keys] == [False] * (len(keys) - 1) + [True]
    assert made.manifests()[0]["objects"]


def test_an_address_that_is_no_store_is_wrong_use_and_nothing_is_read(tmp_path: Path, home: Path) -> None:
    small(home)
    made = granted(tmp_path / "apiary", home)
    with pytest.raises(UsageError, match="invalid store URL"):
        ship.ship(made.home, [home], store_url="ftp://example.com/x")
    with made.state() as state:
        assert state.totals()["rows_staged"] == 0


# Disks ---------------------------------------------------------------------------------------------------------------


@contextmanager
def small_files_only(size: int) -> Iterator[None]:
    """A disk on which no file grows beyond `size`: writes fail as they do when it is full."""
    import signal

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, old)


def test_a_disk_that_is_full_while_staging_says_so_and_loses_nothing(tmp_path: Path, home: Path) -> None:
    append(queen_folder(home) / "events.jsonl", dump(*map(turn, range(3000))))
    made = granted(tmp_path / "apiary", home)
    with small_files_only(300_000), pytest.raises(DeviceError, match="free some space and try again"):
        made.ship(home)
    assert made.manifests() == []
    finish(made, home)
    assert len(made.delivered("llm_turns", newest=False)) == 3000


def full_after(calls: int) -> Callable[[int], None]:
    really, seen = os.fsync, 0

    def fsync(handle: int) -> None:
        nonlocal seen
        seen += 1
        if seen > calls:
            raise OSError(28, "No space left on device")
        really(handle)

    return fsync


@pytest.mark.parametrize("calls", range(8))
def test_a_disk_that_is_full_while_sealing_or_putting_says_so_and_loses_nothing(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    small(home)
    made = granted(tmp_path / "apiary", home, key=KEY)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_after(calls))
        with pytest.raises(DeviceError, match="No space left on device"):
            made.ship(home)
    finish(made, home)
    expected = granted(tmp_path / "other", home, key=KEY)
    expected.ship(home)
    assert content(made) == content(expected)


def test_a_damaged_state_is_a_failure_with_words(tmp_path: Path, home: Path) -> None:
    made = granted(tmp_path / "apiary", home)
    made.ship(home)
    sent = made.ids()
    whole = made.state_file.read_bytes()
    size = len(whole)
    broken = (b"no database" * 1000, bytes(size), whole[: size // 2], whole[:100] + bytes(size - 100))
    for data in broken:
        made.state_file.write_bytes(data)
        with pytest.raises(DeviceError, match="set aside"):
            made.ship(home)
        assert made.state_file.with_name("state.db.damaged").read_bytes() == data
        with pytest.raises(UsageError, match="no consent"):
            made.ship(home)
        made.grant([home])
        made.ship(home)
        assert made.ids() == sent
    made.withdraw()
    assert not made.state_file.with_name("state.db.damaged").exists()


def test_damage_that_shows_after_the_opening_is_set_aside_by_every_command(tmp_path: Path, home: Path) -> None:
    made = granted(tmp_path / "apiary", home)
    made.ship(home)
    sent, whole = made.ids(), made.state_file.read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("APIARY_HOME", str(made.home.root))
        for command in ("consent status", "status", "consent pause", "consent grant --yes --history include", "ship"):
            made.state_file.write_bytes(whole[:4096] + bytes(len(whole) - 4096))
            with pytest.raises(DeviceError, match="cannot be read"):
                preview(made.home, [home])
            options = [] if "consent" in command or command == "status" else ["--home", str(home)]
            assert main(["device", *command.split(), *options]) == 1, command
            assert made.state_file.with_name("state.db.damaged").exists(), command
    made.grant([home])
    made.ship(home)
    assert made.ids() == sent


def test_a_damaged_enrolment_is_a_failure_with_words(tmp_path: Path, home: Path) -> None:
    made = granted(tmp_path / "apiary", home)
    for text in ("{", "[]", "{}", '{"tenant": 5}'):
        (made.home.device / "enrolment.json").write_text(text)
        with pytest.raises(DeviceError, match="enrol"):
            made.ship(home)


# What else must hold -------------------------------------------------------------------------------------------------


def test_one_shipping_at_a_time(tmp_path: Path, home: Path) -> None:
    from pipelines.home import exclusive

    made = granted(tmp_path / "apiary", home)
    with exclusive(made.home.device / "lock"), pytest.raises(DeviceError, match="running"):
        made.ship(home)
    made.ship(home)


def test_in_two_halves_it_is_the_same_as_at_once(tmp_path: Path, home: Path) -> None:
    layout: Layout = "v2"
    simulated(home, layout)
    key = b"k" * 32  # identities that hold a name rest on it
    at_once, in_halves = (granted(tmp_path / name, home, key=key) for name in ("one", "two"))
    at_once.ship(home)
    for path in home.rglob("*.jsonl"):
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
        path.with_name(path.name + ".rest").write_bytes(data[len(data) // 2 :])
    in_halves.ship(home)
    for path in home.rglob("*.jsonl"):
        append(path, path.with_name(path.name + ".rest").read_bytes())
    in_halves.ship(home)
    logs = ("llm_turns", "tool_calls", "node_steps", "node_details", "agent_runs", "status_events", "triggers")
    one, two = ({key for key in made.ids() if key[0] in logs} for made in (at_once, in_halves))
    assert one == two
    assert len(one) > 200


def test_nobody_else_may_read_what_the_device_keeps_whatever_the_mask(tmp_path: Path, home: Path) -> None:
    small(home)
    before = os.umask(0)
    try:
        made = granted(tmp_path / "apiary", home)
        made.ship(home)
        with made.state():
            for path in (made.home.device, *made.home.device.rglob("*")):
                mode = stat.S_IMODE(path.stat().st_mode)
                assert mode == (0o700 if path.is_dir() else 0o600), f"{path} {mode:o}"
    finally:
        os.umask(before)


def test_a_state_in_use_by_a_reader_does_not_stop_the_shipping(tmp_path: Path, home: Path) -> None:
    small(home)
    made = granted(tmp_path / "apiary", home)
    reader = sqlite3.connect(made.state_file)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM consent").fetchall()
    made.ship(home)
    reader.close()
    assert len(made.manifests()) == 1


@pytest.mark.parametrize("damage", ["gone", "flipped", "manifest"])
def test_a_damaged_spool_file_is_sealed_again_and_never_sent(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setattr("pipelines.device.spool.MAX_ROWS", 3)
    small(home)
    made = granted(tmp_path / "apiary", home)
    with monkeypatch.context() as patch:
        patch.setattr(FolderStore, "put", unreachable)
        with pytest.raises(DeviceError):
            made.ship(home)
    ready = made.home.device / "spool" / "ready"
    pattern = "*.json" if damage == "manifest" else "*.parquet"
    victim = sorted(ready.glob(pattern))[1]
    if damage == "gone":
        victim.unlink()
    else:
        victim.write_bytes(bytes([victim.read_bytes()[0] ^ 1]) + victim.read_bytes()[1:])
    finish(made, home)
    calm = granted(tmp_path / "calm", home, store=tmp_path / "calm-store")
    calm.ship(home)
    assert made.ids() == calm.ids()


def unreachable(*_: object) -> None:
    raise StoreUnavailableError("the store does not answer")


def test_a_batch_the_store_will_never_take_gets_a_tombstone(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.device.spool.MAX_ROWS", 3)
    small(home)
    made = granted(tmp_path / "apiary", home)
    put = FolderStore.put

    def picky(store: FolderStore, key: str, data: bytes) -> Put:
        if "/0000000002-" in key and key.endswith(".parquet"):
            raise StoreRejectedError("the store refused put_object: 413 EntityTooLarge")
        return put(store, key, data)

    monkeypatch.setattr(FolderStore, "put", picky)
    made.ship(home)
    chain = made.manifests()
    assert [manifest["seq"] for manifest in chain] == [*range(1, len(chain) + 1)]
    assert [m["seq"] for m in chain if "tombstone" in m] == [2]
    assert chain[1]["objects"] == []
    assert chain[1]["tombstone"]["reason"] == "413 EntityTooLarge"
    assert sum(chain[1]["tombstone"]["rows"].values()) == 3
    texts = [made.store.get(entry.key) for entry in made.store.list("landing") if entry.key.endswith(".json")]
    assert [m["previous_manifest_sha256"] for m in chain[1:]] == [hashlib.sha256(t).hexdigest() for t in texts[:-1]]


def test_a_full_spool_pauses_reading_and_loses_nothing(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(home)
    made = granted(tmp_path / "apiary", home)
    with monkeypatch.context() as patch:
        patch.setattr(FolderStore, "put", unreachable)
        with pytest.raises(DeviceError):
            made.ship(home)
        waiting = made.ids()
        assert waiting == set()
        append(queen_folder(home) / "events.jsonl", dump(turn(900)))
        patch.setattr("pipelines.device.limits.SPOOL_BYTES", 1)
        with pytest.raises(DeviceError):
            made.ship(home)
    with monkeypatch.context() as patch:
        patch.setattr("pipelines.device.limits.SPOOL_BYTES", 1)
        assert made.ship(home).paused is not None
    assert 900 not in {row["iteration"] for row in made.delivered("llm_turns")}
    assert made.ship(home).paused is None
    assert 900 in {row["iteration"] for row in made.delivered("llm_turns")}


def test_dropping_the_oldest_is_a_choice_and_counted(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(home)
    made = granted(tmp_path / "apiary", home)
    with monkeypatch.context() as patch:
        patch.setattr(FolderStore, "put", unreachable)
        with pytest.raises(DeviceError):
            made.ship(home)
    monkeypatch.setattr("pipelines.device.limits.SPOOL_BYTES", 1)
    ship.ship(made.home, [home], store_url=made.store_url, when_full="drop_oldest", is_forced=True)
    (tombstone,) = made.manifests()
    assert tombstone["tombstone"]["reason"] == "dropped_when_full"
    assert sum(tombstone["tombstone"]["rows"].values()) > 0


@pytest.mark.parametrize(
    ("total", "free", "is_full"),
    [(1 << 40, 2 << 30, False), (1 << 40, (1 << 30) - 1, True), (64 << 20, 4 << 20, False), (64 << 20, 3 << 20, True)],
)
def test_a_small_disk_has_a_small_floor(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, total: int, free: int, is_full: bool
) -> None:
    usage = SimpleNamespace(total=total, free=free, used=total - free)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    assert (limits.why_full(tmp_path, 0) is not None) is is_full
