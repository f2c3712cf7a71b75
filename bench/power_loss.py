"""`make power-loss`: what the device wrote is replayed up to a random moment without what was not yet on the disk.

The real program runs under strace, so SQLite's writes and syncs are in the journal like our own. Data that no fsync
covered is dropped, torn at pages or reordered; names that no fsync of their folder covered are dropped from some point
on, each folder for itself (stricter than the file systems in use). The agents' homes and the store are other machines:
they keep what they had. Does not belong here: deaths of processes, which lose nothing the system has (torture).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPORTS = Path(__file__).resolve().parent / "reports"
PAGE = 4096
RANKS = {"cut": 0, "sealed": 1, "delivered": 2}
CALLS = "openat,write,pwrite64,ftruncate,lseek,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,link,linkat"
MARK = "MARK:"


# the life that is traced ----------------------------------------------------------------------------------------------


def life(root: Path, seed: int) -> None:
    """Some shippings of a growing home to a store that is often away; each commit leaves a mark in the trace."""
    from bench.torture import lives
    from bench.torture.lives import Counters, Life
    from bench.torture.writer import Writer
    from pipelines import failpoints
    from pipelines.device.errors import DeviceError

    rng = random.Random(seed)
    writer, counters = Writer(root / "homes", seed), Counters()
    base = Life(
        "ship", 0, home=root / "apiary", agents=root / "homes", store=(root / "store").as_uri(), notes=root,
        sizes={"batch_rows": 40, "chunk": 1 << 14, "shared_ms": 1, "rejected_below": 0},
    )  # fmt: skip

    def mark(name: str) -> None:
        if name == "state.after_commit":
            os.write(2, (MARK + json.dumps(committed(root / "apiary" / "device" / "state.db"))).encode())

    for part in range(6):
        while writer.records < 60 * (part + 1):
            writer._begin(rng.choice([log for s in writer.sessions for log in s.logs]), rng.randint(3, 15))
            writer.finish()
        failpoints.hook = mark
        for _ in range(2):
            try:
                lives._ship(Life(**{**vars(base), "seed": rng.getrandbits(32), "is_calm": part == 5}), counters)
            except DeviceError:  # a store that is away is part of the play
                continue
        failpoints.hook = None
    truth = {kind: [] for kind in ("turn", "call", "status", "step", "detail", "run")}
    for found in writer.ranges:
        truth[found.kind] += range(found.start, found.stop)
    (root / "truth.json").write_text(json.dumps(truth))


def committed(path: Path) -> dict[str, Any]:
    """What a state holds that must never go back: records seen, and how far each batch came."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as state:
        (seen,) = state.execute("SELECT count(*) FROM seen").fetchone()
        batches = dict(state.execute("SELECT seq, state FROM batch").fetchall())
    return {"seen": seen, "batches": {str(seq): RANKS[name] for seq, name in batches.items()}}


# the journal ----------------------------------------------------------------------------------------------------------


@dataclass
class Op:
    """One change, as the system saw it."""

    kind: str
    path: str = ""
    target: str = ""
    inode: int = 0
    offset: int = 0
    data: bytes = b""
    mark: dict[str, Any] | None = None


_LINE = re.compile(r"^\d+\s+(\w+)\((.*)\)\s+= (-?\d+)(?:<(.*)>)?")
_RESUMED = re.compile(r"^(\d+)\s+<\.\.\. (\w+) resumed>(.*)$")


def _lines(trace: Path) -> Iterator[str]:
    """Lines of a trace; a call that another thread interrupted is put together."""
    open_calls: dict[str, str] = {}
    with trace.open(encoding="ascii", errors="replace") as file:
        for line in file:
            if line.rstrip().endswith("<unfinished ...>"):
                open_calls[line.split()[0]] = line.rstrip().removesuffix("<unfinished ...>")
            elif (resumed := _RESUMED.match(line)) is not None:
                yield open_calls.pop(resumed[1], "") + resumed[3]
            else:
                yield line


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


class Journal:
    """Changes below a folder and marks, in their order. `names`: the inodes of files that stood there before."""

    def __init__(self, root: Path, names: dict[str, int]) -> None:
        self.ops: list[Op] = []
        self._root, self._names = str(root), dict(names)
        self._offsets: dict[int, int] = {}
        self._inodes = iter(range(1, 1 << 30))

    def read(self, trace: Path) -> list[Op]:
        """The operations of a trace."""
        for line in _lines(trace):
            match = _LINE.match(line)
            if match is not None and int(match[3]) >= 0:
                self._call(match[1], match[2], int(match[3]))
        return self.ops

    def _call(self, call: str, said: str, result: int) -> None:
        if call == "openat":
            self._open(said, result)
        elif said.partition("<")[0].isdigit():
            self._on_handle(call, said, result)
        else:
            paths = [_bytes(part).decode() for part in said.split('"')[1::2]]
            if any(path.startswith(self._root) for path in paths):
                self._on_names(call, paths)

    def _inode(self, path: str) -> int:
        if path not in self._names:
            self._names[path] = next(self._inodes)
        return self._names[path]

    def _open(self, said: str, handle: int) -> None:
        path = _bytes(said.split('"')[1]).decode()
        flags = said.rpartition('"')[2]
        if not path.startswith(self._root):
            return
        self._offsets[handle] = 0
        if "O_CREAT" in flags and path not in self._names:
            self.ops.append(Op("create", path, inode=self._inode(path)))
        if "O_TRUNC" in flags:
            self.ops.append(Op("truncate", path, inode=self._inode(path)))

    def _on_handle(self, call: str, said: str, result: int) -> None:
        number, _, rest = said.partition("<")
        path = rest.partition(">")[0]
        path = _bytes(path).decode() if path.startswith("\\x") else path
        handle = int(number)
        if call == "write" and handle == 2:
            text = _bytes(rest.split('"')[1]).decode(errors="replace")
            if text.startswith(MARK):
                self.ops.append(Op("mark", mark=json.loads(text.removeprefix(MARK))))
        elif not path.startswith(self._root):
            return
        elif call == "lseek":
            self._offsets[handle] = result
        elif call in ("fsync", "fdatasync"):
            self.ops.append(Op("sync", path, inode=self._names.get(path, 0)))
        elif call == "ftruncate":
            self.ops.append(Op("truncate", path, inode=self._inode(path), offset=int(rest.rpartition(",")[2])))
        else:
            data = _bytes(rest.split('"')[1])[:result]
            at = int(rest.rpartition(",")[2]) if call == "pwrite64" else self._offsets.get(handle, 0)
            if call == "write":
                self._offsets[handle] = at + len(data)
            self.ops.append(Op("write", path, inode=self._inode(path), offset=at, data=data))

    def _on_names(self, call: str, paths: list[str]) -> None:
        if call.startswith("rename"):
            moved = self._names.pop(paths[0], 0) or next(self._inodes)
            self._names[paths[1]] = moved
            self.ops.append(Op("rename", *paths, inode=moved))
        elif call.startswith("unlink"):
            self.ops.append(Op("unlink", paths[0]))
            self._names.pop(paths[0], None)
        elif call.startswith("link"):
            self.ops.append(Op("link", *paths, inode=self._inode(paths[0])))
            self._names[paths[1]] = self._names[paths[0]]


# a crash --------------------------------------------------------------------------------------------------------------


@dataclass
class Disk:
    """What is on a disk: contents by inode, and names; with what is not safe yet."""

    contents: dict[int, bytearray] = field(default_factory=dict)
    unsafe: dict[int, list[Op]] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)
    changes: dict[str, list[Op]] = field(default_factory=dict)
    """Changes of names that no sync of their folder covers, by folder."""

    def apply(self, op: Op) -> None:
        """Let an operation happen, as the system's memory has it."""
        if op.kind in ("write", "truncate"):
            self.unsafe.setdefault(op.inode, []).append(op)
        elif op.kind == "sync":
            for write in self.unsafe.pop(op.inode, ()):
                _put(self.contents.setdefault(op.inode, bytearray()), write)
            for change in self.changes.pop(op.path, ()):
                _rename(self.names, change)
        elif op.kind == "rename":
            self._change(Op("create", op.target, inode=op.inode))
            self._change(Op("unlink", op.path))
        elif op.kind in ("create", "unlink"):
            self._change(op)

    def _change(self, op: Op) -> None:
        self.changes.setdefault(os.path.dirname(op.path), []).append(op)  # noqa: PTH120 - a name, no path of ours

    def crash(self, rng: random.Random) -> dict[str, bytes]:
        """What is found afterwards."""
        names, contents = dict(self.names), {number: bytearray(data) for number, data in self.contents.items()}
        for changes in self.changes.values():
            for change in changes[: rng.randint(0, len(changes))]:
                _rename(names, change)
        mood = rng.choice(("none", "all", "some", "some"))
        for number, writes in self.unsafe.items():
            pages = [page for write in writes for page in _pages(write)]
            kept = [page for page in pages if mood == "all" or (mood == "some" and rng.random() < 0.5)]
            for page in kept:
                _put(contents.setdefault(number, bytearray()), page)
        return {path: bytes(contents.get(number, b"")) for path, number in names.items()}


def _pages(write: Op) -> Iterator[Op]:
    if write.kind != "write":
        yield write
        return
    at = 0
    while at < len(write.data):
        size = PAGE - (write.offset + at) % PAGE
        yield Op("write", inode=write.inode, offset=write.offset + at, data=write.data[at : at + size])
        at += size


def _put(content: bytearray, op: Op) -> None:
    end = op.offset + len(op.data)
    if op.kind == "truncate":
        del content[op.offset :]
        content.extend(bytes(op.offset - len(content)))
        return
    content.extend(bytes(max(0, end - len(content))))
    content[op.offset : end] = op.data


def _rename(names: dict[str, int], change: Op) -> None:
    if change.kind == "create":
        names[change.path] = change.inode
    elif change.kind == "unlink":
        names.pop(change.path, None)


# recovery -------------------------------------------------------------------------------------------------------------


def recover(root: Path, crashed: Path, mark: dict[str, Any] | None) -> list[str]:
    """Start again on what was found; what is wrong."""
    from bench.torture import lives, truth
    from bench.torture.lives import Counters, Life
    from pipelines.device.spool import Spool
    from pipelines.device.state import State

    device = crashed / "apiary" / "device"
    with closing(State(device / "state.db")) as state:
        # SQLite before 3.42 reports NULLs in sound tables without rowid whose key is in another order.
        health = [text for (text,) in state._db.execute("PRAGMA integrity_check") if not text.startswith("NULL value")]
        if health not in ([], ["ok"]):
            return [f"the state is broken: {health[:3]}"]
        for batch in Spool(device / "spool").sealed(state):
            for file in batch.files:
                file.read()  # a sealed batch is safe: DamagedError if it is not
    now = committed(device / "state.db")
    if mark is not None:
        if now["seen"] < mark["seen"]:
            return [f"{mark['seen']} records were committed, {now['seen']} are there"]
        back = {seq for seq, rank in mark["batches"].items() if now["batches"].get(seq, -1) < rank}
        if back:
            return [f"batches {sorted(back)} went back"]
    store = (crashed / "store").as_uri()
    calm = Life("ship", 0, home=crashed / "apiary", agents=root / "homes", store=store, notes=crashed, is_calm=True)
    if lives._ship(calm, Counters()) != lives.DONE:
        return ["it does not come to rest"]
    return _missing(root, crashed / "store", truth.WHERE)


def _missing(root: Path, store: Path, where: dict[str, tuple[str, str, str]]) -> list[str]:
    """What the store's manifests lack of the truth, or have beyond it."""
    import duckdb

    tables: dict[str, set[str]] = {}
    for path in store.glob("landing/**/m/*.json"):
        for item in json.loads(path.read_text())["objects"]:
            tables.setdefault(item["table"], set()).add(str(store / item["key"]))
    wrong = []
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for kind, numbers in json.loads((root / "truth.json").read_text()).items():
            table, number, condition = where[kind]
            found: set[int] = set()
            if table in tables:
                rows = connection.execute(
                    f"SELECT DISTINCT {number} FROM read_parquet(?) WHERE {condition}", [sorted(tables[table])]
                ).fetchall()
                found = {round(value) for (value,) in rows}
            if found != set(numbers):
                wrong.append(f"{kind}: {len(set(numbers) - found)} lost, {len(found - set(numbers))} invented")
    return wrong


def _recovered(root: Path, crashed: Path, mark: dict[str, Any] | None) -> list[str]:
    """`recover` in a child of its own."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            wrong = recover(root, crashed, mark)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is what is wrong
            wrong = [f"{type(error).__name__}: {error}"]
        os.write(writer, json.dumps(wrong).encode()[:60_000])
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        said: list[str] = json.loads(answer.read() or '["the recovery died"]')
    os.waitpid(pid, 0)
    return said


# all of it ------------------------------------------------------------------------------------------------------------


def traced(root: Path, seed: int, disk: Disk) -> list[Op]:
    """Enrol, take that for synced, then trace the life."""
    from bench.torture import lives
    from bench.torture.lives import Counters, Life

    (root / "homes").mkdir()
    (root / "tenant.key").write_text("5e" * 32)
    start = Life("enrol", 0, home=root / "apiary", agents=root / "homes", store=(root / "store").as_uri())
    pid = os.fork()
    if not pid:
        lives.live(start, Counters())
    os.waitpid(pid, 0)
    for number, path in enumerate(path for path in (root / "apiary").rglob("*") if path.is_file()):
        disk.names[str(path)] = -1 - number
        disk.contents[-1 - number] = bytearray(path.read_bytes())
    command = [
        "strace", "-f", "-y", "-xx", "-s", "100000000", "-e", f"trace={CALLS}", "-o", str(root / "trace"),
        sys.executable, "-m", "bench.power_loss", "--life", str(root), "--seed", str(seed),
    ]  # fmt: skip
    result = subprocess.run(command, capture_output=True, check=False, text=True)
    if result.returncode:
        raise SystemExit(f"the traced life ended with {result.returncode}: {result.stderr[-2000:]}")
    return Journal(root, disk.names).read(root / "trace")


def run(root: Path, *, seed: int, states: int) -> dict[str, Any]:
    """Crash `states` times at random moments and recover each time."""
    rng = random.Random(seed)
    started = time.monotonic()
    disk = Disk()
    ops = traced(root, seed, disk)
    moments = sorted(rng.randrange(1, len(ops) + 1) for _ in range(states))
    mark, done = None, 0
    stored: dict[str, int] = {}
    asides: dict[int, bytearray] = {}
    wrong: list[str] = []
    for moment in moments:
        for op in ops[done:moment]:
            if op.kind == "mark":
                mark = op.mark
            elif (op.target or op.path).startswith(str(root / "store")):
                if op.kind == "link":
                    stored[op.target] = op.inode
                elif op.kind == "write":
                    _put(asides.setdefault(op.inode, bytearray()), op)
            elif op.path.startswith(str(root / "apiary")):
                disk.apply(op)
        done = moment
        crashed = Path(tempfile.mkdtemp(prefix="crashed-"))
        try:
            for path, content in disk.crash(rng).items():
                _write(crashed / Path(path).relative_to(root), content)
            for path, inode in stored.items():
                _write(crashed / Path(path).relative_to(root), bytes(asides.get(inode, b"")))
            said = _recovered(root, crashed, mark)
            wrong += [f"moment {moment} of {len(ops)}: {text}" for text in said]
        finally:
            shutil.rmtree(crashed)
    kinds = Counter(op.kind for op in ops)
    return {
        "seed": seed, "states": states, "operations": dict(sorted(kinds.items())), "wrong": wrong,
        "seconds": round(time.monotonic() - started, 1),
    }  # fmt: skip


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _text(found: dict[str, Any]) -> str:
    rows = [(f"{kind} in the journal", count) for kind, count in found["operations"].items()]
    rows = [
        ("seed", found["seed"]), ("crash states recovered", found["states"]), ("wrong", len(found["wrong"])),
        ("seconds", found["seconds"]), *rows,
    ]  # fmt: skip
    table = "\n".join(f"| {what} | {count} |" for what, count in [("what", "count"), ("---", "---"), *rows])
    said = "\n".join(f"- {text}" for text in found["wrong"])
    return (
        "# Power loss\n\nWritten by `make power-loss`. Every state: the database opens and is sound, no record and no "
        "batch that was committed went back,\nevery sealed batch's files are whole, and the next shippings bring the "
        f"store to the writer's ledger exactly.\n\n{table}\n{said}"
    ).rstrip() + "\n"


def main(arguments: list[str]) -> int:
    """Run it; 0 if every state was recovered."""
    parser = argparse.ArgumentParser(prog="make power-loss", description=__doc__)
    parser.add_argument("--seed", type=int, default=20261120)
    parser.add_argument("--states", type=int, default=1200)
    parser.add_argument("--no-report", action="store_true")
    parser.add_argument("--life", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.life is not None:
        life(options.life, options.seed)
        return 0
    if shutil.which("strace") is None:
        print("strace is needed: install it and try again")
        return 2
    from bench.torture import lives

    lives.preload()
    with tempfile.TemporaryDirectory(prefix="power-loss-") as folder:
        found = run(Path(folder), seed=options.seed, states=options.states)
    print(f"seed {found['seed']}: {found['states']} crash states, {len(found['wrong'])} wrong, {found['seconds']} s")
    print("\n".join(found["wrong"][:20]))
    if not options.no_report:
        REPORTS.mkdir(exist_ok=True)
        (REPORTS / "power_loss.md").write_text(_text(found))
    return 1 if found["wrong"] else 0


if __name__ == "__main__":
    tempfile.tempdir = "/dev/shm" if Path("/dev/shm").is_dir() and not os.environ.get("TMPDIR") else None
    sys.exit(main(sys.argv[1:]))
