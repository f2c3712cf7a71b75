"""The npm program ccusage over homes of Claude Code and OpenClaw, beside what Apiary counts, response by response.

ccusage reports days and no responses. So it reads a copy of the homes in which each response has a day of its own: what
it says of that day is what it counted of that response. Its sums over the homes and over the copy are compared, too;
where they differ the copy changed what it counts, and the difference is told as such.
Does not belong here: printing (pipelines/commands).
"""

import json
import os
import re
import shutil
import sqlite3
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.contract import wire
from pipelines.device import enrolment
from pipelines.device.preview import preview
from pipelines.device.readers.claude_code.transcripts import SYNTHETIC
from pipelines.device.readers.openclaw.databases import unpacked
from pipelines.device.readers.registry import recognised
from pipelines.device.redact import Redactor
from pipelines.home import Home

PACKAGE = "ccusage"
VERSION = "20.0.24"
RUNTIMES = ("claude-code", "openclaw")
FIRST_DAY = date(2001, 1, 1)  # of the copy: no line is as old as that
MEASURES = {
    "input_tokens": "inputTokens", "output_tokens": "outputTokens", "cache_read_input_tokens": "cacheReadTokens",
    "cache_write_input_tokens": "cacheCreationTokens",
}  # fmt: skip
RESPONSE_ID = wire.LLM_TURNS.by_name["response_id"]
KINDS = (".jsonl.imported", ".jsonl.reset", ".jsonl.deleted", ".jsonl")
_TIMEOUT = 600
ROWS = "SELECT session_id, seq, event_json, NULL FROM transcript_events"
ROWS_PACKED = "SELECT session_id, seq, event_json, event_zstd FROM transcript_events"
MOVE = "UPDATE transcript_events SET event_json = ? WHERE session_id = ? AND seq = ?"
MOVE_PACKED = "UPDATE transcript_events SET event_zstd = ? WHERE session_id = ? AND seq = ?"

Counts = dict[str, int]


class MissingError(Exception):
    """ccusage is not there, cannot be installed, or gives no report."""


@dataclass(frozen=True)
class Difference:
    """A response that the two count differently. `off`: what ccusage counts more."""

    runtime: str
    response_id: str
    reason: str
    off: Counts


@dataclass
class Comparison:
    """What both count of the homes of one runtime."""

    runtime: str
    homes: list[Path]
    peer: Counts
    ours: Counts
    peer_seconds: float
    our_seconds: float
    differences: list[Difference]
    not_explained: Counts
    """What ccusage counts in the homes and not in their copy with a day for each response."""


Line = dict[str, Any]


@dataclass
class _Response:
    """The lines of a response, wherever they stand."""

    first_at: str
    requests: set[object] = field(default_factory=set)
    files: set[Path] = field(default_factory=set)
    usages: list[Counts] = field(default_factory=list)
    has_message_id: bool = False
    is_words: bool = False
    """The program's own words in the place of a response."""
    oddity: str = ""
    """What in its lines a strict reader of JSON refuses."""


@dataclass
class _Copies:
    """Homes as they are copied. `damaged`: bytes of lines that are no JSON."""

    homes: list[Path] = field(default_factory=list)
    responses: dict[str, _Response] = field(default_factory=dict)
    damaged: list[bytes] = field(default_factory=list)

    def days(self) -> dict[str, date]:
        """A day for each response, in the order of their times: what came first still does."""
        order = sorted(self.responses, key=lambda name: (self.responses[name].first_at, name))
        return {name: FIRST_DAY + timedelta(days=day) for day, name in enumerate(order)}


def program(home: Home) -> Path:
    """The installed program; it is installed below the folder of Apiary if npm is there. Raises MissingError."""
    folder = home.root / "tools" / f"{PACKAGE}-{VERSION}"
    found = folder / "node_modules" / ".bin" / PACKAGE
    if found.exists():
        return found
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        raise MissingError("npm and node are not there: ccusage is not compared")
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [npm, "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), f"{PACKAGE}@{VERSION}"],
        capture_output=True, text=True, check=False, timeout=_TIMEOUT,
    )  # fmt: skip
    if done.returncode or not found.exists():
        raise MissingError(f"npm could not install {PACKAGE}@{VERSION}: it is not compared")
    return found


def compare(peer: Path, homes: Sequence[Path]) -> Iterator[Comparison]:
    """Both programs over the homes of each runtime that ccusage knows."""
    for runtime in RUNTIMES:
        mine = [home for home in homes if (found := recognised(home)) is not None and found.name == runtime]
        if mine:
            with tempfile.TemporaryDirectory(prefix="apiary-compare-") as scratch:
                yield _compare(peer, runtime, mine, Path(scratch))


def _compare(peer: Path, runtime: str, homes: list[Path], scratch: Path) -> Comparison:
    begun = time.perf_counter()
    said = _sum(_report(peer, runtime, homes, scratch / "as-is").values())
    peer_seconds = time.perf_counter() - begun
    begun = time.perf_counter()
    turns, redactor = _turns(homes, scratch / "apiary")
    our_seconds = time.perf_counter() - begun
    copies = _copied(homes, scratch / "copies")
    by_day = _report(peer, runtime, copies.homes, scratch / "by-day")
    counted = {name: by_day.get(day.isoformat(), _nothing()) for name, day in copies.days().items()}
    names = {redactor.identifier(RESPONSE_ID, name): name for name in copies.responses}
    ours: dict[str, Counts] = defaultdict(_nothing)
    for response_id, counts in turns:
        name = names.get(response_id, response_id)
        ours[name] = _plus(ours[name], counts)
    differences = []
    for name in sorted(ours.keys() | counted.keys()):
        off = _minus(counted.get(name, _nothing()), ours.get(name, _nothing()))
        if any(off.values()):
            reason = _reason(name, copies, counted.get(name, _nothing()), ours.get(name, _nothing()))
            differences.append(Difference(runtime, name, reason, off))
    return Comparison(
        runtime, homes, said, _sum(ours.values()), peer_seconds, our_seconds, differences,
        _minus(said, _sum(counted.values())),
    )  # fmt: skip


def _report(peer: Path, runtime: str, homes: list[Path], folder: Path) -> dict[str, Counts]:
    """What ccusage counts of each UTC day."""
    folder.mkdir(parents=True, exist_ok=True)
    environment = {"PATH": os.environ.get("PATH", ""), "HOME": str(folder), "LOG_LEVEL": "0"}
    if runtime == "claude-code":
        environment["CLAUDE_CONFIG_DIR"] = ",".join(map(str, homes))
        command = "claude"
    else:
        command = "openclaw"
        (folder / ".openclaw").symlink_to(homes[0])  # it looks in one place only
    done = subprocess.run(
        [str(peer), command, "daily", "--json", "--offline", "-z", "UTC"], env=environment, capture_output=True,
        text=True, check=False, timeout=_TIMEOUT,
    )  # fmt: skip
    try:
        days = json.loads(done.stdout)["daily"]
    except (ValueError, KeyError, TypeError):
        raise MissingError(f"ccusage gave no report of {runtime}: exit {done.returncode}") from None
    return {
        day.get("date") or day["period"]: {ours: int(day[theirs]) for ours, theirs in MEASURES.items()} for day in days
    }


def _turns(homes: list[Path], folder: Path) -> tuple[list[tuple[str, Counts]], Redactor]:
    """The turns that a device would send, as the peer counts classes of input: apart."""
    home = Home(folder)
    enrolment.enroll(
        home, tenant="compare", user="compare", region="local", timezone="UTC", store=None, tenant_key=None,
        now=datetime.now(UTC),
    )  # fmt: skip
    rows = preview(home, homes).tables.get("llm_turns", [])
    turns = []
    for row in rows:
        read, written = row["cache_read_input_tokens"] or 0, row["cache_write_input_tokens"] or 0
        counts = {
            "input_tokens": row["input_tokens"] - read - written, "output_tokens": row["output_tokens"],
            "cache_read_input_tokens": read, "cache_write_input_tokens": written,
        }  # fmt: skip
        turns.append((str(row["response_id"]), counts))
    return turns, Redactor(enrolment.tenant_key(home))


def _copied(homes: list[Path], folder: Path) -> _Copies:
    """Copies of the homes' lines of usage in which each response has a day of its own."""
    made = _Copies()
    files: list[tuple[Path, list[tuple[bytes, Line | None]]]] = []
    databases: list[Path] = []
    for number, home in enumerate(homes):
        copy = folder / str(number) / home.name
        copy.mkdir(parents=True)
        made.homes.append(copy)
        for path in sorted(home.rglob("*")):
            if path.is_symlink() or not path.is_file():
                continue
            target = copy / path.relative_to(home)
            if ".jsonl" in path.suffixes and ".zst" not in path.suffixes:
                files.append((target, list(_lines(path.read_bytes().split(b"\n"), path, made))))
            elif path.name == "openclaw-agent.sqlite":
                databases.append(_copied_database(path, target, made))
    days = made.days()
    for path, found in files:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join(_moved(data, line, days) + b"\n" for data, line in found))
    for path in databases:
        _move_rows(path, days)
    return made


def _copied_database(path: Path, target: Path, made: _Copies) -> Path:
    """A database and its log; the responses in it are taken down."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for end in ("", "-wal"):
        if path.with_name(path.name + end).exists():
            shutil.copyfile(path.with_name(path.name + end), target.with_name(path.name + end))
    for _, _, data, _ in _rows(target):
        list(_lines([data], path, made))
    return target


def _rows(path: Path) -> list[tuple[object, object, bytes, bool]]:
    """Session, number, text of the events of transcripts, and whether they are packed."""
    with closing(sqlite3.connect(path)) as db:
        names = {row[1] for row in db.execute("PRAGMA table_info(transcript_events)")}
        if "event_json" not in names:
            return []
        rows = db.execute(ROWS_PACKED if "event_zstd" in names else ROWS).fetchall()
    return [
        (session, seq, text.encode("utf-8", "surrogatepass") if text is not None else unpacked(blob), text is None)
        for session, seq, text, blob in rows
        if text is not None or blob is not None
    ]


def _move_rows(path: Path, days: dict[str, date]) -> None:
    rows = _rows(path)
    with closing(sqlite3.connect(path)) as db, db:
        for session, seq, data, is_packed in rows:
            found = _object(data)
            if found is None or _name(found) is None:
                continue
            moved = _moved(data, found, days)
            if is_packed:
                db.execute(MOVE_PACKED, (_packed(moved), session, seq))
            else:
                db.execute(MOVE, (moved.decode(), session, seq))


def _packed(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return bytes(sink.getvalue())


def _lines(lines: Iterable[bytes], path: Path, made: _Copies) -> Iterator[tuple[bytes, Line | None]]:
    """Lines that may hold usage; those of responses are taken down, and are given as objects, too."""
    for data in lines:
        if b"usage" not in data and b'"session"' not in data:
            continue
        found = _object(data)
        is_response = found is not None and _name(found) is not None
        if found is None:
            made.damaged.append(data)
        elif is_response:
            _note(data, found, path, made)
        yield data, found if is_response else None


def _object(data: bytes) -> Line | None:
    try:
        found = json.loads(data)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _name(found: Line) -> str | None:
    """Which response a line is of."""
    message = found.get("message")
    if not isinstance(message, dict) or not isinstance(message.get("usage"), dict):
        return None
    own = found.get("uuid") or found.get("id")
    names = (message.get("responseId"), message.get("id"), own, found.get("requestId"))
    return next((name for name in names if isinstance(name, str) and name), None)


def _note(data: bytes, found: Line, path: Path, made: _Copies) -> None:
    message, at = found["message"], str(found.get("timestamp"))
    response = made.responses.setdefault(str(_name(found)), _Response(at))
    response.first_at = min(response.first_at, at)
    if "responseId" not in message:  # only Claude Code writes requests
        response.requests.add(found.get("requestId"))
    response.files.add(path)
    response.has_message_id |= bool(message.get("responseId") or message.get("id"))
    response.is_words |= message.get("model") == SYNTHETIC or found.get("isApiErrorMessage") is True
    try:
        json.dumps(found, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        response.oddity = "half a character"
    except ValueError:
        response.oddity = "a number that is none"
    if b'"usage": {' in data:
        response.oddity = "blanks between its words"
    usage = message["usage"]
    names = (
        ("input_tokens", "input"), ("output_tokens", "output"), ("cache_read_input_tokens", "cacheRead"),
        ("cache_creation_input_tokens", "cacheWrite"),
    )  # fmt: skip
    values = (usage.get(first, usage.get(second)) for first, second in names)
    numbers = (value if isinstance(value, int) else 0 for value in values)
    response.usages.append(dict(zip(MEASURES, numbers, strict=True)))


def _moved(data: bytes, found: Line | None, days: dict[str, date]) -> bytes:
    """A line on the day of its response, otherwise byte by byte as it was."""
    if found is None:
        return data
    day = days[str(_name(found))]
    written, millis = found.get("timestamp"), found["message"].get("timestamp")
    if isinstance(written, str) and written:
        data = data.replace(written.encode(), re.sub(r"^\d{4}-\d\d-\d\d", day.isoformat(), written).encode())
    if isinstance(millis, int):
        noon = datetime.combine(day, datetime.min.time(), UTC) + timedelta(hours=12)
        data = data.replace(str(millis).encode(), str(int(noon.timestamp() * 1000)).encode())
    return data


def _reason(name: str, copies: _Copies, peer: Counts, ours: Counts) -> str:
    """Why the two counts of a response differ, by what its lines say."""
    response = copies.responses.get(name)
    if response is None:
        is_damaged = any(name.encode() in data for data in copies.damaged)
        return "stands on a torn or glued line" if is_damaged else "stands in a packed archive"
    if not any(ours.values()):
        return "words of the program, no response" if response.is_words else "stands in a file that is no transcript"
    if not any(peer.values()):
        kinds = sorted({_kind(path) for path in response.files})
        return f"its line has {response.oddity}" if response.oddity else f"is not counted in {', '.join(kinds)}"
    if any(peer[measure] > ours[measure] for measure in MEASURES):
        if not response.has_message_id:
            return "a copy of a line without the response's id counts again"
        if response.requests == {None} and len(response.files) == 1:
            return "each line of a response without a request id counts"
        if len(response.requests) > 1:
            return "a copy under another request id counts again"
        return "a copy in another file counts again" if len(response.files) > 1 else "counts more than once"
    if peer in response.usages:
        return "another line of the streamed response is taken"
    return "a request within the response, or a part of its cache writes, is left out"


def _kind(path: Path) -> str:
    """The kind of a file by how its name goes on behind ids and times."""
    return next((kind for kind in KINDS if kind in path.name), path.suffix)


def _nothing() -> Counts:
    return dict.fromkeys(MEASURES, 0)


def _plus(first: Counts, second: Counts) -> Counts:
    return {name: first[name] + second[name] for name in MEASURES}


def _minus(first: Counts, second: Counts) -> Counts:
    return {name: first[name] - second[name] for name in MEASURES}


def _sum(parts: Iterable[Counts]) -> Counts:
    total = _nothing()
    for part in parts:
        total = _plus(total, part)
    return total
