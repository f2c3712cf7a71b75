"""What a forked child does: one real shipping, withdrawal, load or publication, with faults, until it ends or dies.

Does not belong here: when it is killed (rounds.py), whether the result is right (oracle.py).
"""

from __future__ import annotations

import errno
import gc
import mmap
import os
import random
import shutil
import sqlite3
import struct
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import pyarrow.parquet as pq

from bench.torture import truth
from bench.torture.points import ALL
from pipelines import failpoints
from pipelines import store as stores
from pipelines.device import consent, enrolment, grant, lines, outbox, ship, spool, state
from pipelines.device.errors import DeviceError
from pipelines.errors import UsageError
from pipelines.home import Home
from pipelines.store import (
    Entry,
    Put,
    Store,
    StoreRefusedError,
    StoreRejectedError,
    StoreUnavailableError,
)
from pipelines.warehouse import decode, gate, gate_child, load
from pipelines.warehouse.ingest import ingest
from pipelines.warehouse.landing import FetchedBatch, pending
from pipelines.warehouse.publish import publish

DONE, WAITS, NO_CONSENT, FULL, FAILED, DIED = 0, 10, 11, 12, 13, 77
FAULTS = ("unavailable", "response_lost", "reset", "conflict", "forbidden", "rejected")
OPEN_STORE = stores.open_store
COUNTED = (*FAULTS, "existed", "disk_full", "put", *(f"full:{name}" for name in ALL))


class Counters:
    """Numbers that outlive the child that counts: one region of shared memory for each actor."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 8 * len(COUNTED))

    def add(self, name: str) -> None:
        place = 8 * COUNTED.index(name)
        (so_far,) = struct.unpack_from("q", self._memory, place)
        struct.pack_into("q", self._memory, place, so_far + 1)

    def items(self) -> Iterator[tuple[str, int]]:
        for place, name in enumerate(COUNTED):
            yield name, struct.unpack_from("q", self._memory, 8 * place)[0]


@dataclass(frozen=True)
class Life:
    """The plan of one life."""

    role: str
    seed: int
    home: Path = Path()
    agents: Path = Path()
    store: str = ""
    usb: str = ""
    """A folder that is carried to the store by hand."""
    point: str | None = None
    passes: int = 1
    """At which passing of the point."""
    action: str = "exit"
    """What happens at the point: `exit`, or `full` for a full disk."""
    is_calm: bool = False
    notes: Path = Path()
    """Where refused objects and unexpected errors are written down."""
    sizes: dict[str, float] = field(default_factory=dict)


def live(life: Life, counters: Counters) -> None:
    """Be that life; never returns."""
    code = FAILED
    tempfile.tempdir = str(life.notes)  # who is killed leaves its temporary files: they go with the round
    try:
        failpoints.hook = None if life.point is None else _Hook(life, counters)
        code = ROLES[life.role](life, counters)
    except UsageError:
        code = NO_CONSENT
    except BaseException as error:  # noqa: BLE001 - whatever it was, the round must hear of it
        if _is_full(error):
            counters.add("disk_full")
            code = FULL
        elif isinstance(error, (DeviceError, StoreUnavailableError, StoreRefusedError)):
            code = WAITS
        else:
            _note(life, traceback.format_exc())
    finally:
        os._exit(code)


def _note(life: Life, text: str) -> None:
    with (life.notes / "errors.txt").open("a") as file:
        file.write(f"{life}\n{text[:4000]}\n")


def _is_full(error: BaseException | None) -> bool:
    """Whether it was a full disk: SQLite, DuckDB and the system say it in their own words."""
    while error is not None:
        text = str(error).lower()
        if getattr(error, "errno", None) == errno.ENOSPC or "no space left" in text or "disk is full" in text:
            return True
        if "database or disk is full" in text or "disk i/o error" in text or "out of disk space" in text:
            return True
        error = error.__cause__ or error.__context__
    return False


class _Hook:
    """Dies, or finds the disk full, at the n-th passing of one point."""

    def __init__(self, life: Life, counters: Counters) -> None:
        self._life, self._counters, self._left = life, counters, life.passes

    def __call__(self, name: str) -> None:
        if name != self._life.point:
            return
        self._left -= 1
        if self._left == 0:
            if self._life.action == "exit":
                os._exit(DIED)
            self._counters.add(f"full:{name}")
            raise OSError(errno.ENOSPC, "No space left on device")


class FaultyStore:
    """A store that often does not answer, or does what it was asked and says that it did not."""

    def __init__(self, inner: Store, life: Life, counters: Counters) -> None:
        self.url = inner.url
        self._inner, self._life, self._counters = inner, life, counters
        self._rng = random.Random(life.seed)

    def put(self, key: str, data: bytes) -> Put:
        chance = self._rng.random()
        self._counters.add("put")
        if chance < 0.30:
            raise self._fault("unavailable", StoreUnavailableError("the store answered 503"))
        if chance < 0.34:
            raise self._fault("reset", StoreUnavailableError("the connection was reset"))
        if chance < 0.36:
            raise self._fault("conflict", StoreUnavailableError("the store answered 409"))
        if chance < 0.362:
            raise self._fault("forbidden", StoreRefusedError("the store refused put_object: 403 AccessDenied"))
        if chance < self._life.sizes.get("rejected_below", 0.366) and key.endswith(".parquet"):
            # Its batch will be buried: the oracle may not ask for these rows.
            name = key.rsplit("/", 1)[1]
            batch = (self._life.home / "device" / "spool" / "ready").glob(f"{name.split('-')[0]}-*.parquet")
            with (self._life.notes / "refused.txt").open("a") as file:
                for path in batch:
                    file.writelines(f"{line}\n" for line in _numbers(path))
            raise self._fault("rejected", StoreRejectedError("the store refused put_object: 413 EntityTooLarge"))
        answer = self._inner.put(key, data)
        if answer is Put.EXISTED:
            self._counters.add("existed")
        if chance < 0.46:
            raise self._fault("response_lost", StoreUnavailableError("the answer never came"))
        return answer

    def _fault(self, kind: str, error: Exception) -> Exception:
        self._counters.add(kind)
        return error

    def get(self, key: str) -> bytes:
        if self._rng.random() < 0.05:
            raise self._fault("unavailable", StoreUnavailableError("the store answered 503"))
        return self._inner.get(key)

    def list(self, prefix: str) -> Iterator[Entry]:
        return self._inner.list(prefix)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def _numbers(path: Path) -> Iterator[str]:
    """Kind and number of each record of a file in the spool."""
    table = path.name.split("-")[1]
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.register("rows", pq.read_table(path))
        for kind, (name, number, where) in truth.WHERE.items():
            if name == table:
                found = connection.execute(f"SELECT {number} FROM rows WHERE {where}").fetchall()
                yield from (f"{kind} {number}" for (number,) in found)


def _store(life: Life, counters: Counters, url: str) -> Store:
    store = OPEN_STORE(url)
    return store if life.is_calm else FaultyStore(store, life, counters)


def _no_wait(_: float) -> None:
    """A test has no time to wait for a store."""


def _device(life: Life, counters: Counters) -> None:
    """Small steps, so that there is much to interrupt; a store with faults."""
    spool.MAX_ROWS = int(life.sizes.get("batch_rows", spool.MAX_ROWS))
    lines.CHUNK = int(life.sizes.get("chunk", lines.CHUNK))
    state.MAX_SHARED_SECONDS = life.sizes.get("shared_ms", 1000) / 1000
    spool.RECEIPT_SECONDS = int(life.sizes.get("receipt_seconds", spool.RECEIPT_SECONDS))
    stores.open_store = lambda url, **_: _store(life, counters, url)


def _ship(life: Life, counters: Counters) -> int:
    _device(life, counters)
    # A store that was away or refused is mostly asked again at once: an hour is more than a round has.
    is_forced = life.is_calm or life.seed % 5 > 0
    shipped = ship.ship(Home(life.home), [life.agents], store_url=life.store, sleep=_no_wait, is_forced=is_forced)
    return WAITS if shipped.waiting or shipped.paused or shipped.problems else DONE


def _enrol(life: Life, counters: Counters) -> int:
    """Enrol and grant: what a person does after a withdrawal or a loss of the state."""
    home = Home(life.home)
    key = life.home.parent / "tenant.key"
    enrolment.enroll(
        home, tenant="acme", user="ada", region="eu", timezone="UTC", store=life.store, tenant_key=key,
        now=datetime.now(UTC),
    )  # fmt: skip
    with state.opened(home.device / "state.db") as opened:
        found = consent.current(opened)
    if found is None or found.state != "granted":
        grant.grant(home, [], history="include")
    return DONE


def _withdraw(life: Life, counters: Counters) -> int:
    _device(life, counters)
    grant.withdraw(Home(life.home), store_url=life.store)
    return DONE


def _outbox(life: Life, counters: Counters) -> int:
    """What a shipping does first after a withdrawal that could not send."""
    _device(life, counters)
    with state.opened(Home(life.home).device / "state.db") as opened:
        outbox.send(opened, _store(life, counters, life.store))
    return DONE


class NearGate:
    """The gate's rules and its protocol in this process: to start the real one takes longer than a life lasts."""

    def submit(self, fetched: Sequence[FetchedBatch]) -> Future[gate.Judged]:
        judged, left = gate.Judged(), list(fetched)
        while left:
            batches = [list(batch.items) for batch in left]
            answer = BytesIO()
            gate_child._answer(answer, decode.decode(batches, lambda number: None))
            answer.seek(0)
            left = left[gate._take(SimpleNamespace(stdout=answer), left, judged) :]
        future: Future[gate.Judged] = Future()
        future.set_result(judged)
        return future


def _load(life: Life, counters: Counters) -> int:
    """Carry what was exported by hand, load what arrived, and publish from time to time."""
    rng = random.Random(life.seed)
    store = _store(life, counters, life.store)
    if (
        life.usb
        and Path(life.usb.removeprefix("file://")).is_dir()
        and (life.is_calm or life.point == "ingest.put" or rng.random() < 0.5)
    ):
        try:
            ingest(Path(life.usb.removeprefix("file://")), store)
        except (StoreUnavailableError, StoreRefusedError):
            if life.is_calm:
                raise
    if rng.random() < 0.8 and not life.is_calm:
        gate.shared = NearGate
    path = life.home / "warehouse.duckdb"
    with duckdb.connect(str(path), config={"threads": 1}) as connection:
        load.prepare(connection)
        landed = OPEN_STORE(life.store)
        load.load(connection, landed, pending(landed, load.known_manifests(connection)))
        if life.is_calm or life.point is None or life.point.startswith("publish"):
            connection.execute("CREATE SCHEMA IF NOT EXISTS marts")
            connection.execute(
                "CREATE OR REPLACE TABLE marts.turns AS"
                " SELECT session_id, count(*) AS turns FROM wire.llm_turns GROUP BY session_id"
            )
            publish(connection, life.home / "published")
    return DONE


ROLES = {"ship": _ship, "enrol": _enrol, "withdraw": _withdraw, "outbox": _outbox, "load": _load}


def lose_state(home: Path) -> None:
    """The state is gone, and with it the spool's meaning."""
    for path in (home / "device").glob("state.db*"):
        path.unlink()


def damage_state(home: Path, rng: random.Random) -> None:
    """The disk gives back something else than was written."""
    path = home / "device" / "state.db"
    size = path.stat().st_size
    with path.open("r+b") as file:
        if rng.random() < 0.5:
            file.truncate(size // 2)
        else:
            file.seek(rng.choice((0, 4096 if size > 4096 else 0)))
            file.write(bytes(size - file.tell()))


def keep_state(home: Path, aside: Path) -> None:
    """A backup of the state, as a backup program makes it while nothing runs."""
    aside.mkdir(parents=True, exist_ok=True)
    source = home / "device" / "state.db"
    if source.exists():
        with closing(sqlite3.connect(source)) as opened, closing(sqlite3.connect(aside / "state.db")) as target:
            opened.backup(target)


def restore_state(home: Path, aside: Path) -> bool:
    """An old state comes back."""
    if not (aside / "state.db").exists():
        return False
    lose_state(home)
    shutil.copyfile(aside / "state.db", home / "device" / "state.db")
    return True


def preload() -> None:
    """Load what lives need, so that a fork is ready at once. Nothing may start a thread."""
    for module in ("pandas", "pyarrow.compute", "pyarrow.dataset", "zoneinfo"):
        __import__(module)
    gc.freeze()  # a collection would copy every page of what all lives share
