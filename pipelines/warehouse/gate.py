"""Has batches opened by child processes and takes their word, not their death: a bomb costs a child, never the parent.

A child lives for many jobs. When one dies or takes too long, the batch it was looking at is tried alone in a fresh
child, the others go on; when nobody knows which one it was, the job is cut in half.
Does not belong here: what a child does and may (gate_child.py), fetching and loading.
"""

import atexit
import hashlib
import json
import mmap
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import cache
from itertools import compress
from pathlib import Path
from queue import LifoQueue
from typing import Literal, TypeVar

import pyarrow as pa

from pipelines.contract.wire import BY_NAME, TABLES, contract_hash
from pipelines.home import SOURCE, BusyError, exclusive
from pipelines.warehouse import decode, landing
from pipelines.warehouse.gate_child import LENGTH, MAX_SECONDS, NUMBER
from pipelines.warehouse.landing import FetchedBatch

PREFIX = "apiary-gate-"
YOUNG_SECONDS = 60  # a folder is made a moment before it is locked
WALL_SECONDS = 3.0 * MAX_SECONDS  # of the clock: on a busy machine a child waits for the processor
MAX_ANSWER_BYTES = 1 << 30
REASON = re.compile(r"[a-z0-9_]{1,40}(:[a-z0-9_]{1,40})?")
# All a child is told of the world. The system's allocator reserves no address space in advance; one thread is enough.
ENVIRONMENT = {
    "PYTHONPATH": str(SOURCE), "ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1", "ARROW_IO_THREADS": "1",
}  # fmt: skip

T = TypeVar("T")


@cache
def rules_hash() -> str:
    """The contract and the rules by which batches are judged: what other rules refused, these may let in."""
    between_columns = [(table.name, table.sums, table.rules) for table in TABLES]  # which no consent is about
    digest = hashlib.sha256(f"{contract_hash()} {between_columns}".encode())
    for module in (decode, landing):
        digest.update(Path(str(module.__file__)).read_bytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Part:
    """Rows of some batches by table, batch after batch, with the number of rows of each."""

    fetched: tuple[FetchedBatch, ...]
    counts: dict[str, list[int]]
    tables: dict[str, pa.Table]

    def only(self, is_left: Sequence[bool]) -> "Part":
        """The batches for which it is said, and their rows."""
        if all(is_left):
            return self
        tables = {
            name: table.filter(
                pa.array(
                    [left for left, rows in zip(is_left, self.counts[name], strict=True) for _ in range(rows)],
                    pa.bool_(),
                )
            )
            for name, table in self.tables.items()
        }
        return Part(
            tuple(compress(self.fetched, is_left)),
            {name: list(compress(counts, is_left)) for name, counts in self.counts.items()},
            {name: table for name, table in tables.items() if len(table)},
        )


@dataclass
class Judged:
    """What became of a job: every batch is in a part or has a reason."""

    parts: list[Part] = field(default_factory=list)
    refused: list[tuple[FetchedBatch, str]] = field(default_factory=list)


class DiedError(Exception):
    """A child is no more; `suspect` is the batch it was looking at, None if it was at all of them."""

    def __init__(self, reason: str, suspect: int | None) -> None:
        super().__init__(reason)
        self.suspect = suspect


class Gate:
    """Some children and the threads that wait for them."""

    def __init__(self, children: int = 2) -> None:
        self._lives = ExitStack()
        self._folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        self._lives.callback(shutil.rmtree, self._folder, ignore_errors=True)
        self._lives.enter_context(exclusive(self._folder / "lock"))
        _sweep(beside=self._folder)
        self._free: LifoQueue[Child] = LifoQueue()  # a child that has not been needed is not started
        for number in range(children):
            self._free.put(Child(self._folder / f"progress-{number}"))
        self._threads = ThreadPoolExecutor(children, "gate")
        self._all = children

    def submit(self, fetched: Sequence[FetchedBatch]) -> "Future[Judged]":
        """Have a job's batches opened."""
        return self._threads.submit(self.judge, tuple(fetched))

    def judge(self, fetched: tuple[FetchedBatch, ...]) -> Judged:
        """Open batches, and wait for it."""
        child = self._free.get()
        try:
            return _judge(child, fetched)
        finally:
            self._free.put(child)

    def close(self) -> None:
        """End the children."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        for _ in range(self._all):
            child = self._free.get()
            child.end()
            self._free.put(child)  # closing twice is nothing
        self._lives.close()


def _sweep(*, beside: Path) -> None:
    """Remove what gates of this user left that were killed: nobody holds their locks any more."""
    for folder in beside.parent.glob(f"{PREFIX}*"):
        with suppress(OSError, BusyError):  # it lives, or it is gone
            status = folder.lstat()
            is_mine = status.st_uid == beside.stat().st_uid and folder != beside
            if is_mine and time.time() - status.st_mtime > YOUNG_SECONDS:
                with exclusive(folder / "lock"):
                    shutil.rmtree(folder, ignore_errors=True)


@cache
def _gate_of(_process: int) -> Gate:
    gate = Gate()
    atexit.register(gate.close)
    return gate


def shared() -> Gate:
    """The gate of this process: a child takes a moment to start, so it serves every load."""
    return _gate_of(os.getpid())


def _judge(child: "Child", fetched: tuple[FetchedBatch, ...]) -> Judged:
    judged = Judged()
    waiting = [fetched] if fetched else []
    while waiting:
        job = waiting.pop()
        try:
            done = child.decode(job, judged)
        except DiedError as error:
            at = error.suspect
            if len(job) == 1 or (at is not None and str(error) == "gate_timeout"):
                # It had the child's whole time to itself, so it need not be tried again.
                judged.refused.append((job[at or 0], str(error)))
                waiting += [part for part in (job[(at or 0) + 1 :], job[: at or 0]) if part]
            elif at is not None:
                waiting += [part for part in (job[at + 1 :], job[at : at + 1], job[:at]) if part]
            else:
                waiting += [job[len(job) // 2 :], job[: len(job) // 2]]
        else:
            waiting += [job[done:]] if done < len(job) else []
    return judged


class Child:
    """One child process, started when it is needed."""

    def __init__(self, progress: Path, task: Literal["decode", "search"] = "decode") -> None:
        self._path = progress
        self._task = task
        self._path.write_bytes(NUMBER.pack(-1))
        with progress.open("r+b") as file:
            self._progress = mmap.mmap(file.fileno(), NUMBER.size)
        self._process: subprocess.Popen[bytes] | None = None

    def decode(self, job: Sequence[FetchedBatch], judged: Judged) -> int:
        """Have a job decoded; how many of its batches were. Raises DiedError."""

        def talk(process: subprocess.Popen[bytes]) -> int:
            _send(process, job)
            return _take(process, job, judged)

        return self.ask(talk, len(job))

    def ask(self, talk: Callable[[subprocess.Popen[bytes]], T], batches: int) -> T:
        """Talk with the process about some batches. Raises DiedError."""
        NUMBER.pack_into(self._progress, 0, -1)
        process = self._process or self._start()
        with _Watch(process, self._progress) as watch:
            try:
                return talk(process)
            except (OSError, EOFError, ValueError, LookupError, TypeError, struct.error, pa.ArrowException):
                # Whatever it said or left unsaid: a child that is not understood is ended.
                self.end()
        (at,) = NUMBER.unpack_from(self._progress)
        is_late = watch.is_late or process.returncode == -getattr(signal, "SIGXCPU", 24)
        raise DiedError("gate_timeout" if is_late else "gate_crash", at if 0 <= at < batches else None)

    def end(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                with suppress(OSError):
                    pipe.close()  # type: ignore[union-attr]
            self._process = None

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-P", "-m", "pipelines.warehouse.gate_child", str(self._path), self._task]
        kept = {name: os.environ[name] for name in ("SYSTEMROOT", "LD_LIBRARY_PATH") if name in os.environ}
        self._process = subprocess.Popen(
            command, env=kept | ENVIRONMENT, cwd=self._path.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        return self._process


class _Watch:
    """Ends a child that looks at one batch for too long; time that the system cannot limit."""

    def __init__(self, process: subprocess.Popen[bytes], progress: mmap.mmap) -> None:
        self.is_late = False
        self._process = process
        self._progress = progress
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "_Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        seen, since = b"", time.monotonic()
        while not self._over.wait(0.25):
            if (now := self._progress[:]) != seen:
                seen, since = now, time.monotonic()
            elif time.monotonic() - since > WALL_SECONDS:
                self.is_late = True
                self._process.kill()
                return


def _send(process: subprocess.Popen[bytes], job: Sequence[FetchedBatch]) -> None:
    said = [
        [
            (
                len(item.data),
                {
                    "table": item.table,
                    "rows": item.rows,
                    "input_tokens": item.input_tokens,
                    "output_tokens": item.output_tokens,
                },
            )
            for item in batch.items
        ]
        for batch in job
    ]
    header = json.dumps(said).encode()
    assert process.stdin is not None  # noqa: S101 - a pipe was asked for
    process.stdin.write(LENGTH.pack(len(header)) + header)
    for batch in job:
        for item in batch.items:
            process.stdin.write(item.data)
    process.stdin.flush()


def read(process: subprocess.Popen[bytes]) -> bytes:
    """One part of an answer. Raises ValueError, EOFError, struct.error."""
    assert process.stdout is not None  # noqa: S101 - a pipe was asked for
    (size,) = LENGTH.unpack(process.stdout.read(LENGTH.size))
    if size > MAX_ANSWER_BYTES:
        raise ValueError(size)
    data = process.stdout.read(size)
    if len(data) < size:
        raise EOFError
    return data


def _take(process: subprocess.Popen[bytes], job: Sequence[FetchedBatch], judged: Judged) -> int:
    """Take an answer. It may be that of a process which a file has taken over: what it says is checked."""
    said = json.loads(read(process))
    done = int(said["done"])
    reasons = {int(number): str(reason) for number, reason in said["reasons"]}
    if not 0 < done <= len(job) or not all(map(REASON.fullmatch, reasons.values())):
        raise ValueError
    sound = [number for number in range(done) if number not in reasons]
    counts, tables = {}, {}
    for name, found in said["counts"].items():
        by_number = {int(number): int(count) for number, count in found}
        counts[name] = [by_number.pop(number, 0) for number in sound]
        with pa.ipc.open_stream(read(process)) as stream:
            rows = stream.read_all()
        rows.validate(full=True)
        if by_number or min(counts[name]) < 0 or sum(counts[name]) != rows.num_rows:
            raise ValueError
        if rows.schema != BY_NAME[name].arrow:
            raise ValueError
        tables[name] = rows
    judged.parts.append(Part(tuple(job[number] for number in sound), counts, tables))
    judged.refused += [(job[number], reason) for number, reason in sorted(reasons.items()) if number < done]
    return done
