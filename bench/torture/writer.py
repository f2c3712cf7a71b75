"""The agents: a live writer of homes that tears, glues, doubles, rewrites and moves what it writes, and its own ledger.

Every record carries a number that no other record of its kind has, so what became of it can be told without any of the
readers under test. Does not belong here: reading a home, anything of the package (this module imports none of it).
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

STEP_MS = 10  # record n of a home happens n steps after midnight: its time tells its number
DAY = "2026-05-04"
TELEMETRY = b'{"type": "llm_text_delta", "stream_id": "queen", "data": {"usage_ratio": 0.%06d}, "timestamp": ""}'
BLOCK = (20, 400)


def output_tokens(number: int) -> int:
    """What a record of that number says it wrote: the truth of the sums."""
    return number * 7 % 1009


def stamp(number: int) -> str:
    """The local time of a record's number."""
    seconds, milliseconds = divmod(number * STEP_MS, 1000)
    minutes, second = divmod(seconds, 60)
    return f"{DAY}T{minutes // 60:02}:{minutes % 60:02}:{second:02}.{milliseconds:03}000"


def event(kind: str, data: str, number: int, session: str) -> bytes:
    return (
        f'{{"type": "{kind}", "stream_id": "queen", "node_id": "queen", "execution_id": "{session}", "data": {data}, '
        f'"timestamp": "{stamp(number)}", "correlation_id": null, "colony_id": null}}'
    ).encode()


def turn(number: int, session: str) -> bytes:
    data = (
        f'{{"stop_reason": "stop", "model": "anthropic/claude-opus-4-6", "input_tokens": {number}, '
        f'"output_tokens": {output_tokens(number)}, "cached_tokens": 0, "cost_usd": 0.0125, "iteration": {number % 50}}}'
    )
    return event("llm_turn_complete", data, number, session)


def call(number: int, session: str) -> bytes:
    data = (
        f'{{"tool_use_id": "toolu_{number}", "tool_name": "read_file", "result": "x {{\\"a\\": 1}} y", '
        f'"is_error": false}}'
    )
    return event("tool_call_completed", data, number, session)


def status(number: int, session: str) -> bytes:
    return event("node_loop_completed", '{"iterations": 3}', number, session)


def step(number: int, session: str) -> bytes:
    calls = ""
    if number % 4 == 0:
        calls = (
            f'{{"tool_use_id": "toolu_{number}", "tool_name": "read_file", "tool_input": {{}}, "result": "r", '
            f'"is_error": false, "start_timestamp": "{stamp(number)}+00:00", "duration_s": 0.5}}'
        )
    return (
        f'{{"node_id": "intake", "node_type": "event_loop", "step_index": {number % 1000}, "llm_text": "{{\\"t", '
        f'"tool_calls": [{calls}], "input_tokens": {number}, "output_tokens": {output_tokens(number)}, '
        f'"latency_ms": 5, "verdict": "ACCEPT", "error": "", "is_partial": false, "trace_id": "{"a" * 32}", "span_id": "{number:016x}"}}'
    ).encode()


def detail(number: int, session: str) -> bytes:
    return (
        f'{{"node_id": "intake", "node_type": "event_loop", "success": true, "total_steps": 1, '
        f'"tokens_used": {number}, "input_tokens": {number}, "output_tokens": {output_tokens(number)}, "exit_status": "success", '
        f'"trace_id": "{"a" * 32}", "span_id": "{number + (1 << 60):016x}"}}'
    ).encode()


def run(number: int, session: str) -> bytes:
    return f'{{"run_id": "run-{number:012x}", "event": "run_started", "timestamp": "{stamp(number)}"}}'.encode()


KINDS: dict[str, Callable[[int, str], bytes]] = {
    "turn": turn, "call": call, "status": status, "step": step, "detail": detail, "run": run,
}  # fmt: skip
FILES: dict[str, tuple[str, ...]] = {
    "events.jsonl": ("turn", "call", "call", "status", "status"),
    "logs/tool_logs.jsonl": ("step",),
    "logs/details.jsonl": ("detail",),
    "runs.jsonl": ("run",),
}


@dataclass(eq=False)
class Range:
    """Records `start` to before `stop` of one kind: whole in at least one file that may be read."""

    kind: str
    start: int
    stop: int
    session: str
    copies: int = 1
    is_sent: bool = False
    """Whether all of it was known to be in a store before its last copy went."""
    is_optional: bool = False
    """Destroyed by its owner before it was sent: it may be counted, once, or not at all."""
    is_moved: bool = False
    """Its first file is gone: a copy may be all that is ever read."""


@dataclass(eq=False)
class Log:
    """One file that grows by lines."""

    path: Path
    kinds: tuple[str, ...]
    session: str
    held: list[Range] = field(default_factory=list)
    pieces: list[bytes] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    """Where in the block being written each of its records ends."""
    block: Range | None = None
    data: bytes = b""
    written: int = 0


@dataclass(eq=False)
class Session:
    """One session folder of one home, its logs and its workers' logs."""

    home: Path
    name: str
    folder: Path
    logs: list[Log] = field(default_factory=list)
    placed: int = 0
    """When it came to where it is, in acts of the writer: a reader may have missed it until then."""


class Writer:
    """Writes into homes, one small action at a time, and knows what must come of it."""

    def __init__(self, home: Path, seed: int) -> None:
        self.rng = random.Random(seed)
        self.homes = [home]
        self.sessions: list[Session] = []
        self.ranges: list[Range] = []
        self.next_number = 1
        self.next_session = 0
        self.clock = 0
        self.records = self.lines = 0
        self.acts: dict[str, int] = {}
        self.summaries: dict[Path, int] = {}
        self.all_summaries: set[int] = set()
        self._growing: list[Log] = []
        for _ in range(3):
            self._new_session()

    def act(self) -> None:
        """Do one thing that an agent, its janitor, its owner or its crash does."""
        self.clock += 1
        if self._growing and self.rng.random() < 0.75:
            self._continue(self.rng.choice(self._growing))
            return
        (action,) = self.rng.choices(ACTIONS, WEIGHTS)
        self.acts[action] = self.acts.get(action, 0) + 1
        getattr(self, f"_{action}")()

    def finish(self) -> None:
        """Write what is half written: from now on nothing happens in the homes."""
        while self._growing:
            self._continue(self._growing[0])

    def now(self) -> tuple[int, int]:
        """A moment, for `sent`: every record below the number stands whole in a home."""
        blocks = [log.block.start for log in self._growing if log.block]
        return min([self.next_number, *blocks]), self.clock

    def sent(self, home: Path, moment: tuple[int, int]) -> None:
        """What one home held at a moment is in a store."""
        number, clock = moment
        for session in self.sessions:
            if session.home == home and session.placed < clock:
                for log in session.logs:
                    for found in log.held:
                        found.is_sent = found.is_sent or found.stop <= number

    def withdrawn(self) -> None:
        """What was sent may be erased: only what a home still holds must come again."""
        for found in self.ranges:
            found.is_sent = False
            found.is_optional = found.is_optional or not found.copies

    # appending ------------------------------------------------------------------------------------------------------

    def _append(self) -> None:
        log = self.rng.choice([log for session in self.sessions for log in session.logs])
        if log.block is None:
            self._begin(log, self.rng.randint(*BLOCK))

    def _begin(self, log: Log, count: int) -> None:
        kind = self.rng.choice(log.kinds)
        make, first = KINDS[kind], self.next_number
        self.next_number += count
        parts: list[bytes] = []
        size, every = 0, self.rng.choice((0, 0, 2, 5)) if kind in FILES["events.jsonl"] else 0
        log.ends = []
        for number in range(first, first + count):
            if every and number % every == 0:
                parts.append(TELEMETRY % (number % 1_000_000))
                size += len(parts[-1]) + 1
            parts.append(make(number, log.session))
            size += len(parts[-1]) + 1
            log.ends.append(size - 1)
        self.lines += len(parts)
        log.data = b"\n".join(parts) + b"\n"
        log.block = Range(kind, first, first + count, log.session)
        cuts = sorted(self.rng.randrange(1, size) for _ in range(self.rng.randint(0, 6)))
        log.pieces = [log.data[a:b] for a, b in zip([0, *cuts], [*cuts, size], strict=True)]
        log.written = 0
        self._growing.append(log)
        self._continue(log)

    def _continue(self, log: Log) -> None:
        if self.rng.random() < 0.03:
            self._die(log)
            return
        piece = log.pieces.pop(0)
        _append_bytes(log.path, piece)
        log.written += len(piece)
        if not log.pieces:
            self._credit(log, len(log.ends))

    def _die(self, log: Log) -> None:
        """The process dies in the middle of a write: what was whole counts, the torn rest is glued to what comes."""
        self.acts["torn"] = self.acts.get("torn", 0) + 1
        whole = sum(end <= log.written for end in log.ends)
        torn, again = log.data, log.block
        self._credit(log, whole)
        if again is not None and self.rng.random() < 0.5 and whole < len(log.ends):
            # The next process writes the torn record again, behind its torn half.
            number = again.start + whole
            start = log.ends[whole - 1] + 1 if whole else 0
            line = torn[start : log.ends[whole] + 1].split(b"\n")[-2]
            _append_bytes(log.path, line + b"\n")
            self._add(log, Range(again.kind, number, number + 1, again.session))

    def _credit(self, log: Log, whole: int) -> None:
        block = log.block
        assert block is not None
        if whole:
            self._add(log, Range(block.kind, block.start, block.start + whole, block.session))
        log.block, log.pieces = None, []
        self._growing.remove(log)

    def _add(self, log: Log, found: Range) -> None:
        log.held.append(found)
        self.ranges.append(found)
        self.records += found.stop - found.start

    # doing harm -----------------------------------------------------------------------------------------------------

    def _quiet(self) -> Iterator[Log]:
        return (log for session in self.sessions for log in session.logs if log.block is None and log.path.exists())

    def _pick(self, name: str = "") -> Log | None:
        found = [log for log in self._quiet() if log.path.name.startswith(name) and log.held]
        return self.rng.choice(found) if found else None

    def _double(self) -> None:
        """A write that seemed to fail is done again: whole lines of the file's end stand twice."""
        if (log := self._pick()) is not None:
            with log.path.open("rb") as file:
                size = file.seek(0, 2)
                file.seek(max(0, size - 8192))
                lines = file.read().split(b"\n")[1:-1]
            again = b"".join(line + b"\n" for line in lines[-self.rng.randint(1, 9) :] if line)
            _append_bytes(log.path, again)
            self.lines += again.count(b"\n")

    def _both(self) -> None:
        """A worker's events go to its queen's log as well."""
        logs = [log for log in self._quiet() if log.path.name == "events.jsonl"]
        if len(logs) >= 2 and (source := self._pick("events")) is not None:
            target = self.rng.choice([log for log in logs if log is not source])
            made = source.held[-1]
            count = min(made.stop - made.start, 20)
            _append_bytes(
                target.path,
                b"".join(
                    KINDS[made.kind](number, made.session) + b"\n" for number in range(made.start, made.start + count)
                ),
            )
            self.lines += count

    def _janitor(self) -> None:
        """The runtime tidies up: telemetry goes, the rest is written aside and moved into the file's place."""
        if (log := self._pick("events")) is not None:
            kept = [line for line in log.path.read_bytes().split(b"\n") if not _is_telemetry(line)]
            aside = log.path.with_suffix(".tmp")
            aside.write_bytes(b"\n".join(kept))
            aside.replace(log.path)

    def _truncate(self) -> None:
        """Cut off in place, and grown beyond what it was before anybody looks."""
        if (log := self._pick()) is not None:
            size = log.path.stat().st_size
            self._destroy(log)
            with log.path.open("r+b") as file:
                file.truncate(0)
            self._begin(log, BLOCK[0] + min(size, 60_000) // 300)
            while log.block is not None:
                self._continue(log)

    def _replace(self) -> None:
        """Deleted and made again under the same name, perhaps with the same inode."""
        if (log := self._pick()) is not None:
            self._destroy(log)
            log.path.unlink()
            self._begin(log, self.rng.randint(*BLOCK))

    def _destroy(self, log: Log) -> None:
        for found in log.held:
            found.copies -= 1
            found.is_moved = found.is_moved or found.session == log.session
            if not found.copies and not found.is_sent:
                found.is_optional = True
        log.held = []

    # folders --------------------------------------------------------------------------------------------------------

    def _name(self) -> str:
        self.next_session += 1
        minute = self.next_session // 60
        time = f"{minute // 60:02}{minute % 60:02}{self.next_session % 60:02}"
        return f"session_20260504_{time}_{self.rng.getrandbits(32):08x}"

    def _new_session(self) -> None:
        if len(self.sessions) >= 24:
            return
        home, name = self.rng.choice(self.homes), self._name()
        folder = home / "queens" / "queen_technology" / "sessions" / name
        session = Session(home, name, folder, placed=self.clock)
        session.logs = [Log(session.folder / file, kinds, name) for file, kinds in FILES.items()]
        self.sessions.append(session)

    def _new_worker(self) -> None:
        session, name = self.rng.choice(self.sessions), self._name()
        if len(session.logs) < 6:
            folder = session.folder / "workers" / name
            session.logs.append(Log(folder / "events.jsonl", FILES["events.jsonl"], name))

    def _move(self) -> None:
        """A migration moves a session's folder to another place."""
        session = self.rng.choice(self.sessions)
        places = ("queens/queen_technology/sessions", "agents/queens/queen_technology/sessions", "sessions")
        target = session.home / self.rng.choice(places) / session.name
        if target != session.folder and session.folder.exists():
            self._place(session, target)

    def _place(self, session: Session, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        session.folder.rename(target)
        for log in session.logs:
            log.path = target / log.path.relative_to(session.folder)
        self.summaries = {
            target / path.relative_to(session.folder) if path.is_relative_to(session.folder) else path: number
            for path, number in self.summaries.items()
        }
        session.folder, session.placed = target, self.clock

    def _fork(self) -> None:
        """A new session begins as a copy of another one's folder."""
        session = self.rng.choice(self.sessions)
        if len(self.sessions) < 24 and session.folder.exists():
            name = self._name()
            self._copy(session, session.home, name, session.folder.parent / name)

    def _copy(self, session: Session, home: Path, name: str, target: Path) -> None:
        if target.exists():
            return
        shutil.copytree(session.folder, target)
        made = Session(home, name, target, placed=self.clock)
        for log in session.logs:
            is_own = log.path.relative_to(session.folder).parts[0] != "workers"
            copy = Log(target / log.path.relative_to(session.folder), log.kinds, name if is_own else log.session)
            if not copy.path.exists():
                continue
            copy.held = list(log.held)
            for found in copy.held:
                found.copies += 1
                self.lines += found.stop - found.start
            made.logs.append(copy)
        self.summaries |= {
            target / path.relative_to(session.folder): number
            for path, number in self.summaries.items()
            if path.is_relative_to(session.folder)
        }
        self.sessions.append(made)

    def copy_home(self, target: Path) -> None:
        """Another machine gets a copy of the first home, and goes on with it."""
        for session in [session for session in self.sessions if session.home == self.homes[0]]:
            if session.folder.exists():
                self._copy(session, target, session.name, target / session.folder.relative_to(session.home))
        if target not in self.homes:
            self.homes.append(target)

    def _summary(self) -> None:
        """A run's totals are written anew."""
        session = self.rng.choice(self.sessions)
        path = session.folder / "logs" / "summary.json"
        number = self.next_number
        self.next_number += 1
        text = (
            f'{{"trace_id": "{"b" * 32}", "status": "success", "total_input_tokens": {number}, "started_at": '
            f'"{stamp(number)}+00:00", "attention_reasons": []}}'
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".tmp").write_text(text)
        path.with_suffix(".tmp").replace(path)
        self.summaries[path] = number
        self.all_summaries.add(number)

    def _tasks(self) -> None:
        """A session's task list is written anew."""
        session = self.rng.choice(self.sessions)
        states = [self.rng.choice(("pending", "in_progress", "completed")) for _ in range(3)]
        tasks = ", ".join(f'{{"id": {number}, "status": "{state}"}}' for number, state in enumerate(states))
        session.folder.mkdir(parents=True, exist_ok=True)
        (session.folder / "tasks.json").write_text(f'{{"tasks": [{tasks}]}}')


WEIGHED = {
    "append": 70, "double": 6, "both": 5, "janitor": 6, "truncate": 1, "replace": 1, "new_session": 2, "new_worker": 2,
    "move": 2, "fork": 1, "summary": 4, "tasks": 3,
}  # fmt: skip
ACTIONS, WEIGHTS = tuple(WEIGHED), tuple(WEIGHED.values())


def _is_telemetry(line: bytes) -> bool:
    return line.startswith(TELEMETRY[:25]) and line.endswith(b"}") and line.count(b'{"type"') == 1


def _append_bytes(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(data)
