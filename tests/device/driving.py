"""Drives the device part from Python as the command line does, and reads back what it delivered.

Does not belong here: what only one test asserts.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipelines.device import enrolment, grant, migrations
from pipelines.device.blocks import rows_in
from pipelines.device.consent import History
from pipelines.device.preview import Preview, preview
from pipelines.device.ship import Shipped, ship
from pipelines.device.state import State
from pipelines.home import Home
from pipelines.simulate.counts import Usage
from pipelines.simulate.homes import HomeSpec, Layout, Truth, write_home
from pipelines.store import FolderStore

Row = dict[str, Any]
Json = dict[str, Any]
LAYOUTS: tuple[Layout, ...] = ("v2", "v3", "doc")
OWN_TABLES = ("device_reports", "source_files")  # what the uploader says of its own runs: another one each run
ZONE = "Europe/Berlin"


def no_sleep(_: float) -> None:
    """For `ship`: a store that does not answer is asked again at once."""


@dataclass(frozen=True)
class Device:
    """One enrolled device with its own APIARY_HOME and a store, by default under it."""

    home: Home
    store_url: str

    def grant(self, homes: Sequence[Path], *, history: History = "include", now: datetime | None = None) -> None:
        grant.grant(self.home, homes, history=history, now=now)

    def withdraw(self) -> None:
        grant.withdraw(self.home)

    def ship(self, *homes: Path) -> Shipped:
        return ship(self.home, homes, store_url=self.store_url, sleep=no_sleep, is_forced=True)

    def preview(self, *homes: Path) -> Preview:
        return preview(self.home, homes)

    @property
    def state_file(self) -> Path:
        return self.home.device / "state.db"

    @contextmanager
    def state(self) -> Iterator[State]:
        with closing(State(self.state_file)) as state:
            yield state

    @property
    def store(self) -> FolderStore:
        return FolderStore(Path(self.store_url.removeprefix("file://")))

    def manifests(self) -> list[Json]:
        """Manifests in the store, in the order of their chains."""
        keys = [entry.key for entry in self.store.list("landing") if entry.key.endswith(".json")]
        return [json.loads(self.store.get(key)) for key in keys]

    def delivered(self, *tables: str, newest: bool = True) -> list[Row]:
        """Rows of the delivered batches; of a corrected record the newest row only, unless all are asked for."""
        found: list[Row] = []
        for manifest in self.manifests():
            for item in manifest["objects"]:
                if not tables or item["table"] in tables:
                    data = self.store.root / item["key"]
                    rows = pq.read_table(data).to_pylist()
                    found += [{"_table": item["table"], **row} for row in rows]
        if not newest:
            return found
        return list({(row["_table"], row["record_id"]): row for row in found}.values())

    def ids(self) -> set[tuple[str, str]]:
        """(table, record_id) of everything delivered that describes agents."""
        return {(row["_table"], row["record_id"]) for row in self.delivered() if row["_table"] not in OWN_TABLES}

    def sources(self, kind: str | None = None) -> list[Row]:
        """What the uploader says of its sources, over all runs."""
        rows = self.delivered("source_files")
        return [row for row in rows if kind is None or row["source_kind"] == kind]


def device(
    root: Path, *, tenant: str = "acme", user: str = "ada", timezone: str = ZONE, key: bytes | None = None,
    store: Path | None = None,
) -> Device:  # fmt: skip
    """Enrol a device under `root`."""
    home = Home(root)
    key_file = None
    if key is not None:
        root.mkdir(parents=True, exist_ok=True)
        key_file = root.with_name(f"{root.name}.key")
        key_file.write_text(key.hex())
    url = (store or root / "store").as_uri()
    now = datetime.now(UTC)
    enrolment.enroll(
        home, tenant=tenant, user=user, region="eu", timezone=timezone, store=url, tenant_key=key_file, now=now
    )
    return Device(home, url)


def granted(root: Path, *homes: Path, history: History = "include", **other: Any) -> Device:
    """Enrol a device and grant consent."""
    made = device(root, **other)
    made.grant(homes, history=history)
    return made


def counted_exactly(folder: Path, home: Path, truth: Usage) -> None:
    """Ship a simulated home whose every text has the word CANARY: its usage is the truth, and no text is kept."""
    made = granted(folder / "apiary", home)
    made.ship(home)
    rows = made.delivered("llm_turns")
    assert len(rows) == truth.turns
    for name in ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_write_input_tokens"):
        assert sum(row[name] for row in rows) == getattr(truth, name), name
    assert len(made.delivered("tool_calls")) == truth.tool_calls
    assert all(b"CANARY" not in path.read_bytes() for path in made.home.root.rglob("*") if path.is_file())


def simulated(root: Path, layout: Layout, *, seed: int = 7, **other: Any) -> Truth:
    """Write a small simulated home."""
    spec: dict[str, Any] = {"timezone": ZONE, "first_day": date(2026, 5, 4), "days": 1, "turns_per_session": 3, **other}
    return write_home(root, HomeSpec(layout=layout, seed=seed, **spec))


def row_by_row(db: sqlite3.Connection) -> None:
    """Until the fourth version a staged row was a JSON document of its own."""
    found = db.execute("SELECT seq, table_name, data FROM staged").fetchall()
    rows = [
        (row["record_id"], table, json.dumps(row, default=str), seq)
        for seq, table, data in found
        for row in rows_in(data)
    ]
    for table in ("staged", "waiting", "unchanged"):
        db.execute(f"DROP TABLE {table}")
    db.execute(next(text for text in migrations.FIRST_SCHEMA.split(";") if "EXISTS staged" in text))
    db.executemany("INSERT INTO staged VALUES (?, ?, ?, ?)", rows)
    db.execute("PRAGMA user_version = 4")


# Hand-made lines, as Hive writes them --------------------------------------------------------------------------------

SESSION = "session_20260504_101500_0a1b2c3d"
LATER = "session_20260504_111500_4e5f6a7b"
LATEST = "session_20260504_121500_8c9d0e1f"


def event(
    kind: str, data: Json, *, at: str | None = "2026-05-04T10:15:30.000001", session: str | None = SESSION,
    stream: str = "queen", **other: Any,
) -> Json:  # fmt: skip
    """A record of events.jsonl."""
    return {
        "type": kind, "stream_id": stream, "node_id": "queen", "execution_id": session, "data": data, "timestamp": at,
        "correlation_id": None, "colony_id": None, **other,
    }  # fmt: skip


def turn(number: int = 0, *, session: str | None = SESSION, at: str | None = None, **data: Any) -> Json:
    """A turn's event; each number is another turn."""
    usage: Json = {
        "stop_reason": "stop", "model": "anthropic/claude-opus-4-6", "input_tokens": 100 + number, "output_tokens": 10,
        "cached_tokens": 5, "cache_creation_tokens": 1, "cost_usd": 0.0125, "iteration": number,
    }  # fmt: skip
    stamp = at or f"2026-05-04T{10 + number // 3600:02}:{number // 60 % 60:02}:{number % 60:02}.5"
    return event("llm_turn_complete", {**usage, **data}, at=stamp, session=session)


def step(number: int = 0, *, span: bool = True, **other: Any) -> Json:
    """An L3 line; each number is another step."""
    line: Json = {
        "node_id": "intake", "node_type": "event_loop", "step_index": number, "llm_text": "", "tool_calls": [],
        "input_tokens": 200 + number, "output_tokens": 20, "latency_ms": 5, "verdict": "ACCEPT", "verdict_feedback": "",
        "error": "", "stacktrace": "", "is_partial": False, "trace_id": "a" * 32, "parent_span_id": "",
        "execution_id": "b" * 32,
    }  # fmt: skip
    return line | ({"span_id": f"{0xABC0_0000_0000_0000 + number:016x}"} if span else {}) | other


def tool(started: str = "", **other: Any) -> Json:
    """A tool call of an L3 line."""
    call: Json = {"tool_use_id": "toolu_1", "tool_name": "read_file", "tool_input": {}, "result": ""}
    return {**call, "is_error": False, "start_timestamp": started, "duration_s": 0.5, **other}


def dump(*records: Json, ending: str = "\n") -> bytes:
    """Records as lines."""
    return "".join(json.dumps(record) + ending for record in records).encode()


def queen_folder(home: Path, session: str = SESSION, queen: str = "queen_technology") -> Path:
    """A queen's session of layout v2, made if it is not there."""
    folder = home / "agents" / "queens" / queen / "sessions" / session
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def flat_folder(home: Path, session: str = SESSION) -> Path:
    """A session of the documented layout with a folder for runtime logs."""
    folder = home / "sessions" / session
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    return folder


def append(path: Path, data: bytes) -> Path:
    """Append bytes to a file, made if it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(data)
    return path
