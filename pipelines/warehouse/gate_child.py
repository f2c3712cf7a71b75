"""The process that opens what devices sent: no credentials, no network, little memory and time, no file.

It reads jobs on standard input and answers on standard output; when it dies, only the batch it was looking at is lost.
Two tasks run in it: `decode` batches (decode.py) and `search` objects for what was erased (needles.py).
What the system cannot limit (memory on macOS, all but time on Windows) it does not. Does not belong here: judging
(decode.py), starting and watching this process (gate.py).
"""

import ctypes
import json
import mmap
import struct
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

MAX_MEMORY_BYTES = 1 << 30
MAX_SECONDS = 20
LENGTH = struct.Struct(">Q")
NUMBER = struct.Struct(">q")
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000


def main() -> None:
    """Answer jobs until standard input ends."""
    _leave_the_network()
    is_search = sys.argv[2] == "search"
    if is_search:
        from pipelines.warehouse import needles
    else:
        from pipelines.warehouse import decode

    _limit_everything()
    with Path(sys.argv[1]).open("r+b") as file:
        progress = mmap.mmap(file.fileno(), NUMBER.size)

    def announce(number: int) -> None:
        NUMBER.pack_into(progress, 0, number)
        _limit_time()

    jobs, answers = sys.stdin.buffer, sys.stdout.buffer
    if is_search:
        needles.answer(jobs, answers, announce)
        return
    while header := jobs.read(LENGTH.size):
        batches = [
            [decode.Item(data=jobs.read(size), **item) for size, item in batch]
            for batch in json.loads(jobs.read(*LENGTH.unpack(header)))
        ]
        _answer(answers, decode.decode(batches, announce))


def _answer(answers: BinaryIO, decoded: Any) -> None:
    import pyarrow as pa

    said = {
        "done": decoded.done,
        "reasons": sorted(decoded.reasons.items()),
        "counts": {name: sorted(counts.items()) for name, counts in decoded.counts.items()},
    }
    parts = [json.dumps(said).encode()]
    for name in said["counts"]:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, decoded.tables[name].schema) as stream:
            stream.write_table(decoded.tables[name])
        parts.append(sink.getvalue())
    for part in parts:
        answers.write(LENGTH.pack(len(part)))
        answers.write(part)
    answers.flush()


def _leave_the_network() -> None:
    """A network of its own, without any interface, where Linux lets us; before any thread is started."""
    if sys.platform == "linux":
        unshare = ctypes.CDLL(None, use_errno=True).unshare
        if unshare(CLONE_NEWNET):
            unshare(CLONE_NEWUSER | CLONE_NEWNET)


def _limit_everything() -> None:
    with suppress(ImportError):
        import resource

        for name, limit in (("AS", MAX_MEMORY_BYTES), ("FSIZE", 0), ("CORE", 0), ("NOFILE", 32)):
            with suppress(ValueError, OSError):
                resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (limit, limit))


def _limit_time() -> None:
    """Seconds of the processor for what begins now: a limit counts from the start of the process."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        _, most = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + MAX_SECONDS, most))


if __name__ == "__main__":
    main()
