"""The protocol as a state machine over the real classes: any order of steps, faults and deaths comes to the same truth.

A shipping that dies at a named point is the prefix of one: read, cut, sealed, put. Hypothesis shrinks a failure to the
shortest story. Does not belong here: real processes, real kills and big numbers (bench/torture).
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import duckdb
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from bench.torture import points
from bench.torture.lives import NearGate
from bench.torture.writer import TELEMETRY, output_tokens, step, turn
from pipelines import failpoints
from pipelines.contract.keys import parse_prefix
from pipelines.contract.wire import BY_NAME
from pipelines.device import enrolment, ship, spool, state
from pipelines.device.errors import DeviceError
from pipelines.errors import UsageError
from pipelines.store import Put, StoreRefusedError, StoreRejectedError, StoreUnavailableError
from pipelines.warehouse import erase, gate, load, registry, suppression
from pipelines.warehouse.landing import Arrival, Manifest, pending
from tests.device.driving import Device, granted, no_sleep
from tests.warehouse_part.batches import START, MemoryStore

pytestmark = pytest.mark.services

SESSIONS = ("session_20260504_101500_0a1b2c3d", "session_20260504_111500_4e5f6a7b")
PLACES = ("queens/queen_technology/sessions", "agents/queens/queen_technology/sessions", "sessions")
TABLES = {"events.jsonl": ("llm_turns", turn), "logs/tool_logs.jsonl": ("node_steps", step)}
OUTCOMES = ("ok", "lost", "503", "409", "403", "413")


class Killed(BaseException):
    """The end of a process, as far as one process can play another's."""


class Store(MemoryStore):
    """Answers as it is told to, then well."""

    clock_offset = None

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[str] = []
        self.refuse: Callable[[str], None] = lambda key: None

    def put(self, key: str, data: bytes) -> Put:
        match self.answers.pop(0) if self.answers else "ok":
            case "503" | "409" as status:
                raise StoreUnavailableError(f"the store answered {status}")
            case "403":
                raise StoreRefusedError("the store refused put_object: 403 AccessDenied")
            case "413" if key.endswith(".parquet"):
                self.refuse(key)
                raise StoreRejectedError("the store refused put_object: 413 EntityTooLarge")
            case "lost":
                super().put(key, data)
                raise StoreUnavailableError("the answer never came")
        return super().put(key, data)


class Protocol(RuleBasedStateMachine):
    """One home, one device, one store, one warehouse."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="machine-"))
        self.agents = self.folder / "hive"
        self.agents.mkdir()
        self.places = dict.fromkeys(SESSIONS, PLACES[0])
        self.store = Store()
        self.store.refuse = self._refuse
        self.device: Device = granted(self.folder / "apiary")
        self.warehouse = self.folder / "warehouse" / "apiary.duckdb"
        self.warehouse.parent.mkdir()
        self.connection = self._open()
        self.next = 1
        self.must: dict[str, set[int]] = {table: set() for table, _ in TABLES.values()}
        self.may: dict[str, set[int]] = {table: set() for table, _ in TABLES.values()}
        self.files: dict[tuple[str, str], set[int]] = {}
        """The numbers that stand whole in each file."""
        self.erased: dict[str, set[int]] = {table: set() for table, _ in TABLES.values()}
        """What was erased and is in no file any more: it must never be seen again."""
        self.backup: dict[str, bytes] = {}
        """Objects that were erased, as a copy of the landing would still hold them."""
        self.patches = [
            mock.patch("pipelines.store.open_store", return_value=self.store),
            mock.patch.object(state, "MAX_SHARED_SECONDS", -1.0),
            mock.patch.object(spool, "MAX_ROWS", 3),
            mock.patch.object(gate, "shared", NearGate),
        ]
        for patch in self.patches:
            patch.start()

    # the agents -----------------------------------------------------------------------------------------------------

    def path(self, session: str, file: str) -> Path:
        return self.agents / self.places[session] / session / file

    def add(self, session: str, file: str, data: bytes) -> None:
        path = self.path(session, file)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as log:
            log.write(data)

    def stand(self, session: str, file: str, number: int) -> None:
        self.must[TABLES[file][0]].add(number)
        self.files.setdefault((session, file), set()).add(number)

    files_of = st.tuples(st.sampled_from(SESSIONS), st.sampled_from(sorted(TABLES)))

    @rule(where=files_of, count=st.integers(1, 4), telemetry=st.booleans())
    def append(self, where: tuple[str, str], count: int, telemetry: bool) -> None:
        session, file = where
        for _ in range(count):
            if telemetry and file == "events.jsonl":
                self.add(session, file, TELEMETRY % self.next + b"\n")
            self.add(session, file, TABLES[file][1](self.next, session) + b"\n")
            self.stand(session, file, self.next)
            self.next += 1

    @rule(where=files_of, share=st.floats(0.01, 0.99), again=st.booleans())
    def append_torn(self, where: tuple[str, str], share: float, again: bool) -> None:
        session, file = where
        line = TABLES[file][1](self.next, session)
        self.add(session, file, line[: max(1, int(len(line) * share))])
        if again:
            self.add(session, file, line + b"\n")
            self.stand(session, file, self.next)
        self.next += 1

    @rule(where=files_of)
    def double(self, where: tuple[str, str]) -> None:
        if (path := self.path(*where)).exists():
            last = path.read_bytes().rpartition(b"\n")[0].rpartition(b"\n")[2]
            self.add(*where, last + b"\n" if last else b"")

    @rule(session=st.sampled_from(SESSIONS))
    def rewrite(self, session: str) -> None:
        if (path := self.path(session, "events.jsonl")).exists():
            lines = path.read_bytes().split(b"\n")
            kept = [x for x in lines if not (x.startswith(TELEMETRY[:25]) and x.count(b'{"type"') == 1)]
            path.with_suffix(".tmp").write_bytes(b"\n".join(kept))
            path.with_suffix(".tmp").replace(path)

    @rule(where=files_of, count=st.integers(1, 6))
    def truncate(self, where: tuple[str, str], count: int) -> None:
        """What stood there and was not sent may be lost; what comes instead is new, perhaps longer."""
        if (path := self.path(*where)).exists():
            table = TABLES[where[1]][0]
            gone = self.files.pop(where, set()) - self.sent(table)
            self.must[table] -= gone
            self.may[table] |= gone
            with path.open("r+b") as log:
                log.truncate(0)
            self.append(where, count, False)

    @rule(session=st.sampled_from(SESSIONS), place=st.sampled_from(PLACES))
    def rename(self, session: str, place: str) -> None:
        source, target = (self.agents / p / session for p in (self.places[session], place))
        if source.exists() and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            source.rename(target)
            self.places[session] = place

    def sent(self, table: str) -> set[int]:
        """Numbers that stand in the store, under a manifest: read from its bytes alone."""
        found: set[int] = set()
        manifests = b"".join(data for key, data in self.store.objects.items() if key.endswith(".json"))
        for key, data in self.store.objects.items():
            if f"-{table}-" in key and key.encode() in manifests and not self._is_erased(key):
                with tempfile.NamedTemporaryFile(suffix=".parquet") as file:
                    file.write(data)
                    file.flush()
                    found.update(pq.read_table(file.name, columns=["input_tokens"]).column(0).to_pylist())
        return found

    # the device -----------------------------------------------------------------------------------------------------

    def _refuse(self, key: str) -> None:
        """The store will never take this object: its batch will be buried, and its rows counted as lost."""
        ready = self.device.home.device / "spool" / "ready"
        for path in ready.glob(Path(key).name.partition("-")[0] + "-*.parquet"):
            table = path.name.split("-")[1]
            if table in self.may:
                self.may[table].update(pq.read_table(path, columns=["input_tokens"]).column(0).to_pylist())

    def _ship(self) -> bool:
        """Ship; whether nothing waits."""
        try:
            shipped = ship.ship(
                self.device.home, [self.agents], store_url=self.device.store_url, sleep=no_sleep, is_forced=True
            )
        except DeviceError:
            return False
        except UsageError:
            self.device.grant([])
            return False
        return not shipped.waiting

    def _killed(self, point: str, passes: int, act: Callable[[], object]) -> None:
        left = passes

        def hook(name: str) -> None:
            nonlocal left
            left -= name == point
            if name == point and not left:
                raise Killed(name)

        with mock.patch.object(failpoints, "hook", hook):
            try:
                act()
            except Killed:
                return

    @rule(answers=st.lists(st.sampled_from(OUTCOMES), max_size=8))
    def put(self, answers: list[str]) -> None:
        self.store.answers = answers
        self._ship()

    @rule(point=st.sampled_from(("cut.assigned", "seal.begun", "put.before")))
    def poll_or_cut_or_seal(self, point: str) -> None:
        """A shipping that ends after reading, after the cut, after sealing."""
        self._killed(point, 1, self._ship)

    @rule(
        point=st.sampled_from(points.DEVICE),
        passes=st.integers(1, 6),
        answers=st.lists(st.sampled_from(OUTCOMES), max_size=4),
    )
    def kill(self, point: str, passes: int, answers: list[str]) -> None:
        self.store.answers = answers
        self._killed(point, passes, self._ship)

    @rule()
    def lose_state(self) -> None:
        """What was read and not sent is read again; what its owner destroyed meanwhile is not there to be read."""
        for path in self.device.home.device.glob("state.db*"):
            path.unlink()
        self.device.grant([])
        self._excuse_unsent()

    @rule(point=st.sampled_from(("", *points.OWNER[3:])))
    def withdraw(self, point: str) -> None:
        self._killed(point, 1, lambda: self._owner(self.device.withdraw))
        self._owner(lambda: self.device.grant([]))
        self._excuse_unsent()

    def _owner(self, act: Callable[[], object]) -> None:
        try:
            act()
        except UsageError:  # there is no grant to withdraw
            return

    def _excuse_unsent(self) -> None:
        """The device forgot what it had read: what no file and no store holds is gone with it."""
        for file, (table, _) in TABLES.items():
            gone = self.must[table] - self._standing(file) - self.sent(table)
            self.must[table] -= gone
            self.may[table] |= gone

    def _standing(self, file: str) -> set[int]:
        return set().union(*(found for (_, name), found in self.files.items() if name == file))

    # the warehouse --------------------------------------------------------------------------------------------------

    def _open(self) -> duckdb.DuckDBPyConnection:
        connection = duckdb.connect(str(self.warehouse), config={"threads": 1})
        load.prepare(connection)
        return connection

    def _load(self, again: set[str], *, which: int | None = None) -> None:
        policy = registry.admission_policy(self.warehouse.parent, self.store)

        def ask(arrival: Arrival, manifest: Manifest) -> str | None:
            return policy(arrival, manifest) or ("of_today" if arrival.parts.seq % 3 == which else None)

        arrivals = pending(self.store, load.known_manifests(self.connection) - again)
        load.load(self.connection, self.store, arrivals, admission=ask, again=again)

    @rule(point=st.sampled_from(("", *points.INGEST[1:9])), passes=st.integers(1, 3))
    def ingest(self, point: str, passes: int) -> None:
        self._killed(point, passes, lambda: self._load(set()))

    @rule(which=st.integers(0, 2))
    def quarantine(self, which: int) -> None:
        """Some batches are refused by rules of the day."""
        self._load(set(), which=which)

    @rule()
    def replay(self) -> None:
        self._load(self._quarantined())

    def _quarantined(self) -> set[str]:
        found = self.connection.execute("SELECT manifest_key FROM wire.batches WHERE status = 'quarantined'").fetchall()
        return {key for (key,) in found}

    @rule(point=st.sampled_from(("", *points.ERASE)), passes=st.integers(1, 3))
    def erase(self, point: str, passes: int) -> None:
        """The owner takes everything back and grants anew; the warehouse erases, or dies while it does."""
        self.store.answers = []
        self.withdraw("")
        self._load(self._quarantined())
        self._killed(point, passes, self._erase_wholly)
        for file, (table, _) in TABLES.items():
            gone = self.must[table] - self._standing(file) - self.sent(table)
            self.must[table] -= gone
            self.erased[table] |= gone

    def _erase_wholly(self) -> None:
        suppression.record_requests(self.store)
        self.backup |= {key: data for key, data in self.store.objects.items() if self._is_erased(key)}
        self.connection.close()
        try:
            work = erase.Pass(self.warehouse, self.store)
            work.rewrite(lambda _file: None, now=START)
            work.clear_landing()
            work.prove([self.warehouse.parent], passing_over=[], now=START)
        finally:
            self.connection = self._open()

    def _is_erased(self, key: str) -> bool:
        prefix = parse_prefix(key)
        place = prefix and {"tenant": prefix.tenant, "device": prefix.device, "epoch": prefix.epoch}
        return bool(place) and any(line.covers(**place, user=None) for line in suppression.load(self.store).listed)

    @rule()
    def bring_back(self) -> None:
        """Somebody restores a copy of the landing that was made before an erasure."""
        for key, data in self.backup.items():
            self.store.objects.setdefault(key, data)
            self.store.received.setdefault(key, START)

    # at rest --------------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        try:
            self.store.answers = []
            assert any(self._ship() for _ in range(4)), "the device comes to rest"
            self._load(self._quarantined())
            assert self._quarantined() == set()
            self._erase_wholly()
            self._is_true()
            self._is_taken_back()
        finally:
            for patch in self.patches:
                patch.stop()
            self.connection.close()
            shutil.rmtree(self.folder)

    def _is_true(self) -> None:
        for table in self.must:
            rows = self.connection.execute(f"SELECT input_tokens, output_tokens FROM wire.{table}").fetchall()
            found = Counter(number for number, _ in rows)
            assert self.must[table] - found.keys() - self.may[table] == set(), f"{table}: lost"
            assert found.keys() & self.erased[table] == set(), f"{table}: erased and here again"
            assert found.keys() - self.must[table] - self.may[table] == set(), f"{table}: phantom"
            assert {number for number, times in found.items() if times > 1} == set(), f"{table}: doubled"
            assert all(tokens == output_tokens(number) for number, tokens in rows)
        (conflicts,) = self.connection.execute("SELECT count(*) FROM wire.conflicts").fetchone() or (0,)
        assert conflicts == 0

    def _is_taken_back(self) -> None:
        """Whatever happened: in the end the whole device is erased, and a restored copy changes nothing."""
        device = enrolment.require(self.device.home)
        suppression.record(
            self.store, scope="device", tenant=device.tenant, subject=device.device_id, actor="a", reason="b"
        )
        self._erase_wholly()
        self.bring_back()
        self._load(self._quarantined())
        for table in BY_NAME:
            assert self.connection.execute(f"FROM wire.{table}").fetchall() == [], f"{table}: erased and here again"
        self._erase_wholly()
        assert [key for key in self.store.objects if key.startswith("landing/")] == []
        assert suppression.pending(self.store, suppression.load(self.store)) == [], "every erasure is proven"


QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large]


def explore(examples: int, steps: int, *, is_repeatable: bool) -> None:
    run_state_machine_as_test(
        Protocol,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=QUIET,
            derandomize=is_repeatable, print_blob=True,
        ),
    )  # fmt: skip


def test_any_order_of_steps_and_deaths_comes_to_the_truth() -> None:
    explore(7, 20, is_repeatable=True)


@pytest.mark.long
def test_many_orders_of_steps_and_deaths_come_to_the_truth() -> None:
    explore(1000, 40, is_repeatable=False)
