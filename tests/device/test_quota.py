"""A quota check at home: what the warehouse counted and what it did not add up to the truth, without a network."""

from __future__ import annotations

import json
import os
import resource
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.contract.quota import Budget, Counted, Measure, Period, Snapshot, period_of, prefix
from pipelines.device import consent, enrolment, quota, usage
from pipelines.device.migrations import FIRST_SCHEMA
from pipelines.device.quota import Answer, check, fetch
from pipelines.device.state import State
from pipelines.home import Home
from pipelines.store import Entry, FolderStore, StoreRefusedError, StoreUnavailableError
from tests.device.driving import SESSION, append, device, dump, granted, queen_folder, turn

NOW = datetime(2026, 11, 20, 8, 30, tzinfo=UTC)
EPOCH = "e" * 16
DEVICE = "d" * 32
ADA = enrolment.Enrolment(DEVICE, "acme", "ada", "eu", "UTC", "", "")
MEASURES: tuple[Measure, ...] = ("tokens", "reported_cost_usd", "turns")
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Turn:
    """A turn of the truth. `seq`: its batch, 0 while it waits for one."""

    seq: int
    at: datetime | None
    user: str
    tokens: int
    cost: Decimal | None

    def row(self) -> dict[str, Any]:
        return {
            "session_id": f"s-{self.user}", "occurred_at": self.at, "input_tokens": self.tokens, "output_tokens": 0,
            "reported_cost_usd": self.cost,
        }  # fmt: skip


@dataclass
class Desk:
    """A device's state with hand-made use."""

    home: Home
    db: sqlite3.Connection
    waiting: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def add(self, *turns: Turn) -> None:
        """Stage and cut, as state.py does."""
        for seq in sorted({made.seq for made in turns}, key=lambda seq: seq or 10**9):
            for made in turns:
                if made.seq == seq:
                    self.db.execute("INSERT OR IGNORE INTO session VALUES (?, ?, 1)", (f"s-{made.user}", made.user))
                    self.stage("llm_turns", made.row())
            if seq != usage.WAITING:
                self.cut(seq)

    def stage(self, table: str, row: dict[str, Any]) -> None:
        usage.staged(self.db, table, [row])
        self.waiting.append((table, row))

    def cut(self, seq: int) -> None:
        for table in usage.TABLES:
            usage.cut(self.db, seq, table, [row for name, row in self.waiting if name == table])
        self.waiting.clear()

    def publish(self, *budgets: Budget, as_of: datetime = NOW, counted: Sequence[int] = (), **other: Any) -> None:
        found = Snapshot(
            tenant="acme", region="eu", as_of=as_of, budgets=budgets, **other,
            counted=(Counted(device=DEVICE, epoch=EPOCH, ranges=ranges(counted)),),
        )  # fmt: skip
        quota.path_of(self.home).write_bytes(found.to_json())

    def check(self, now: datetime = NOW) -> Answer:
        return check(self.home, ADA, now=now)


def ranges(counted: Sequence[int]) -> tuple[tuple[int, int], ...]:
    found: list[tuple[int, int]] = []
    for seq in sorted(counted):
        if found and found[-1][1] == seq - 1:
            found[-1] = (found[-1][0], seq)
        else:
            found.append((seq, seq))
    return tuple(found)


def new_desk(root: Path) -> Desk:
    home = Home(root)
    with closing(State(home.device / "state.db")) as state, state.step():
        state.set_value("epoch", EPOCH)
    db = sqlite3.connect(home.device / "state.db", isolation_level=None)
    db.execute("PRAGMA synchronous=OFF")
    usage.install(db)
    return Desk(home, db)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = new_desk(tmp_path)
    yield made
    made.db.close()


def budget(
    limit: object, *, measure: Measure = "tokens", period: Period = "day", at: datetime = NOW, warn_at: str = "0.8",
    **other: Any,
) -> Budget:  # fmt: skip
    start, end = period_of(period, at)
    values: dict[str, Any] = {"scope": "tenant", "used": Decimal(0), **other}
    return Budget(
        period=period, start=start, end=end, measure=measure, limit=Decimal(str(limit)), warn_at=Decimal(warn_at),
        **values,
    )  # fmt: skip


def use(tokens: int = 0, *, seq: int = 0, at: datetime | None = NOW, user: str = "ada", cost: str | None = "1") -> Turn:
    return Turn(seq, at, user, tokens, None if cost is None else Decimal(cost))


# used + local = truth -------------------------------------------------------------------------------------------------

TURNS = st.lists(
    st.builds(
        Turn,
        seq=st.integers(0, 6),
        at=st.datetimes(datetime(2026, 10, 30), datetime(2026, 12, 3), timezones=st.just(UTC)) | st.just(NOW),  # noqa: DTZ001
        user=st.sampled_from(["ada", "bob"]),
        tokens=st.integers(0, 10**8),
        cost=st.none() | st.decimals(Decimal("1e-20"), Decimal(10**6), places=20),
    ),
    max_size=25,
)


def measured(turns: Sequence[Turn], measure: Measure) -> Decimal:
    with localcontext() as context:
        context.prec = 76
        match measure:
            case "tokens":
                return Decimal(sum(turn.tokens for turn in turns))
            case "turns":
                return Decimal(len(turns))
            case _:
                return sum((turn.cost for turn in turns if turn.cost is not None), Decimal(0))


@settings(max_examples=60, deadline=None)
@given(turns=TURNS, counted=st.sets(st.integers(1, 6)), others=st.integers(0, 10**6))
def test_counted_and_local_use_are_the_truth_whatever_was_counted(
    tmp_path_factory: pytest.TempPathFactory, turns: list[Turn], counted: set[int], others: int
) -> None:
    """`others` is what other devices used and the warehouse counted."""
    made = new_desk(tmp_path_factory.mktemp("desk"))
    made.add(*turns)
    budgets, truths = [], []
    for measure in MEASURES:
        for period in ("day", "month"):
            for user in (None, "ada"):
                start, end = period_of(period, NOW)
                mine = [t for t in turns if t.at and start <= t.at < end and user in (None, t.user)]
                arrived = [turn for turn in mine if turn.seq in counted]
                unpriced = sum(turn.tokens for turn in arrived if turn.cost is None)
                budgets.append(
                    budget(
                        10**15, measure=measure, period=period, scope="user" if user else "tenant", user=user,
                        used=measured(arrived, measure) + others, unpriced_tokens=unpriced,
                    )
                )  # fmt: skip
                truths.append(
                    (measured(mine, measure) + others, sum(turn.tokens for turn in mine if turn.cost is None))
                )
    made.publish(*budgets, counted=sorted(counted))
    answer = made.check()
    made.db.close()
    assert [(s.used, s.unpriced_tokens) for s in answer.standings] == truths


def test_a_batch_loaded_before_an_earlier_one_is_not_counted_twice(desk: Desk) -> None:
    desk.add(use(10, seq=1), use(100, seq=2), use(1000, seq=3), use(10_000))
    desk.publish(budget(10**9, used=Decimal(1010)), counted=[1, 3])
    assert desk.check().standings[0].used == 11_110


def test_another_epochs_numbers_count_nothing(desk: Desk) -> None:
    desk.add(use(10, seq=1))
    old = Counted(device=DEVICE, epoch="f" * 16, ranges=((1, 9),))
    found = Snapshot(tenant="acme", region="eu", as_of=NOW, counted=(old,), budgets=(budget(100),))
    quota.path_of(desk.home).write_bytes(found.to_json())
    assert desk.check().standings[0].local == 10


def test_a_turn_without_a_time_counts_in_every_period_until_it_is_counted(desk: Desk) -> None:
    desk.add(use(10, seq=1, at=None))
    both = (budget(100), budget(100, period="month"))
    desk.publish(*both)
    assert [standing.local for standing in desk.check().standings] == [10, 10]
    desk.publish(*both, counted=[1])
    assert [standing.local for standing in desk.check().standings] == [0, 0]
    tomorrow = NOW + timedelta(days=1)
    assert desk.check(tomorrow).standings[0].local == 0


def test_a_session_of_another_user_is_billed_to_that_user(desk: Desk) -> None:
    desk.add(use(10, user="ada"), use(100, user="bob"))
    desk.publish(budget(10**6, scope="user", user="ada"), budget(10**6))
    assert [standing.used for standing in desk.check().standings] == [10, 110]


def test_steps_count_until_an_event_of_their_session_is_seen(desk: Desk) -> None:
    step = {
        "session_id": "s-ada", "step_index": 0, "tool_started_at": None, "file_modified_at": NOW, "input_tokens": 7,
        "output_tokens": 3,
    }  # fmt: skip
    desk.add(use(1, user="bob", at=NOW - timedelta(days=1)))
    desk.db.execute("INSERT INTO session VALUES ('s-ada', 'ada', 1)")
    desk.stage("node_steps", step)
    desk.stage("node_steps", step | {"step_index": -1, "input_tokens": 5})
    desk.cut(1)
    desk.publish(budget(100), budget(100, measure="reported_cost_usd"))
    assert [standing.used for standing in desk.check().standings] == [10, 0]
    assert desk.check().standings[1].unpriced_tokens == 10
    desk.add(use(10))
    assert desk.check().standings[0].used == 10


def test_a_correction_takes_the_place_of_the_waiting_row(desk: Desk) -> None:
    desk.add(use(10, user="ada"))
    desk.db.execute("INSERT INTO session VALUES ('s-bob', 'bob', 1)")
    usage.staged(desk.db, "llm_turns", [use(10, user="bob").row()], replaced=[use(10, user="ada").row()])
    desk.waiting[:] = [("llm_turns", use(10, user="bob").row())]
    desk.cut(1)
    assert desk.db.execute("SELECT seq, user_id, tokens FROM usage").fetchall() == [(1, "bob", 10)]


def test_old_days_are_forgotten_and_what_waits_is_not(desk: Desk) -> None:
    old = NOW - timedelta(days=200)
    desk.add(use(1, seq=1, at=old), use(2, seq=2), use(4, at=old), use(8, seq=3, at=None), use(16, seq=4, at=None))
    usage.prune(desk.db, before=quota.oldest_day(NOW), counted=[(1, 3)])
    assert {row[0] for row in desk.db.execute("SELECT tokens FROM usage")} == {2, 4, 16}
    assert quota.oldest_day(datetime(2026, 3, 31, tzinfo=UTC)) == date(2026, 2, 1)


def test_what_an_older_version_left_staged_is_counted(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / "state.db", isolation_level=None)
    db.executescript(FIRST_SCHEMA)
    db.execute("INSERT INTO session VALUES ('s-ada', 'ada', 1)")
    text = json.dumps(use(10).row(), default=str)
    insert = "INSERT INTO staged (record_id, table_name, row, seq) VALUES (?, 'llm_turns', ?, ?)"
    db.executemany(insert, [("a" * 32, text, 0), ("b" * 32, text, 1)])
    for _ in range(2):
        usage.install(db)
    assert db.execute("SELECT seq, tokens FROM usage").fetchall() == [(0, 10), (1, 10)]
    usage.cut(db, 2, "llm_turns", [json.loads(text)])
    assert db.execute("SELECT seq, tokens FROM usage").fetchall() == [(1, 10), (2, 10)]
    db.close()


# answers --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("used", "decision", "code"), [(79, "allow", 0), (80, "warn", 0), (99, "warn", 0), (100, "block", 3)]
)
def test_the_limit_and_the_warning_begin_where_they_say(desk: Desk, used: int, decision: str, code: int) -> None:
    desk.add(use(used - 70))
    desk.publish(budget(100, used=Decimal(70)))
    answer = desk.check()
    assert (answer.decision, answer.exit_code) == (decision, code)
    assert f"the tenant used {used} of 100 tokens this day" in answer.reason


def test_a_cost_is_compared_exactly(desk: Desk) -> None:
    used = Decimal("999999999999.99999999999999999998")
    limit = "1000000000000"
    desk.publish(budget(limit, measure="reported_cost_usd", used=used, warn_at="1"))
    desk.add(use(cost="0.00000000000000000001"))
    assert desk.check().decision == "allow"
    desk.add(use(cost="0.00000000000000000001"))
    assert desk.check().decision == "block"


def test_nothing_is_allowed_by_a_limit_of_nothing(desk: Desk) -> None:
    desk.publish(budget(0))
    assert desk.check().decision == "block"


def test_the_strictest_budget_answers(desk: Desk) -> None:
    desk.add(use(50))
    allowed, warned, blocked = budget(1000), budget(60, scope="user", user="ada"), budget(1, measure="turns")
    others = budget(1, scope="user", user="bob")
    desk.publish(allowed, others)
    assert desk.check().decision == "allow"
    desk.publish(allowed, warned, others)
    assert desk.check().decision == "warn"
    desk.publish(allowed, blocked, warned, others)
    answer = desk.check()
    assert (answer.decision, len(answer.standings)) == ("block", 3)
    assert "1 of 1 turns" in answer.reason


def test_an_unpriced_model_does_not_blind_a_cost_cap(desk: Desk) -> None:
    desk.add(use(500, cost=None))
    capped = budget(100, measure="reported_cost_usd", unpriced_tokens=400)
    desk.publish(capped)
    answer = desk.check()
    assert (answer.decision, answer.standings[0].unpriced_tokens) == ("warn", 900)
    assert "900 tokens have no price" in answer.reason
    desk.publish(replace(capped, unpriced_limit_tokens=901))
    assert desk.check().decision == "warn"
    desk.publish(replace(capped, unpriced_limit_tokens=900))
    assert desk.check().decision == "block"
    desk.publish(budget(1000, unpriced_tokens=900))
    assert desk.check().decision == "allow", "tokens need no price"


# periods and clocks ---------------------------------------------------------------------------------------------------


def test_a_new_period_begins_at_home_too(desk: Desk) -> None:
    """Month end, offline: yesterday's and last month's use is no longer held against anybody, today's is."""
    last = datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC)
    desk.add(use(10, seq=1, at=last), use(40, seq=2, at=last + timedelta(seconds=1)))
    both = [budget(50, period=period, at=last, used=Decimal(40)) for period in ("day", "month")]
    desk.publish(*both, as_of=last - timedelta(minutes=5))
    assert [standing.used for standing in desk.check(last).standings] == [50, 50]
    answer = desk.check(last + timedelta(seconds=1))
    assert [standing.used for standing in answer.standings] == [40, 40]
    assert [standing.start.day for standing in answer.standings] == [1, 1]
    assert answer.decision == "warn"
    assert len(answer.notes) == 2
    assert answer.age_seconds == 301


def test_the_last_days_of_february(desk: Desk) -> None:
    leap = datetime(2028, 2, 29, 12, tzinfo=UTC)
    desk.add(use(10, seq=1, at=leap), use(20, seq=2, at=leap + timedelta(days=1)))
    desk.publish(budget(100, period="month", at=leap), as_of=leap)
    assert desk.check(leap).standings[0].used == 10
    assert desk.check(leap + timedelta(days=1)).standings[0].used == 20


def test_what_a_snapshot_counted_of_a_later_period_still_counts_there(desk: Desk) -> None:
    tomorrow = NOW + timedelta(days=1)
    desk.add(use(30, seq=1, at=tomorrow))
    desk.publish(budget(100), counted=[1])
    assert desk.check(tomorrow).standings[0].used == 30


def test_a_budget_of_a_later_period_waits(desk: Desk) -> None:
    desk.publish(budget(0, at=NOW + timedelta(days=1)))
    assert (desk.check().decision, desk.check().reason) == ("allow", "no budget applies to this user")
    assert desk.check(NOW + timedelta(days=1)).decision == "block"


def test_setting_the_clock_back_brings_nothing_back(desk: Desk) -> None:
    desk.publish(budget(100, used=Decimal(100)))
    answer = desk.check(NOW - timedelta(days=40))
    assert (answer.decision, answer.age_seconds) == ("block", 0)
    assert "clock is behind" in answer.notes[0]


def test_it_answers_offline_for_weeks_and_states_the_age(desk: Desk) -> None:
    desk.publish(budget(100, period="month", used=Decimal(100)), as_of=NOW - timedelta(days=19))
    answer = desk.check()
    assert (answer.decision, answer.age_seconds) == ("block", 19 * 86_400)


# no snapshot, a wrong one, a busy state -------------------------------------------------------------------------------


def test_without_a_snapshot_it_allows_and_says_so(desk: Desk) -> None:
    answer = desk.check()
    assert (answer.decision, answer.exit_code, answer.as_of) == ("allow", 0, None)
    assert "no quota snapshot yet" in answer.reason


def test_a_snapshot_of_another_tenant_is_ignored_and_said(desk: Desk) -> None:
    found = Snapshot(tenant="other", region="eu", as_of=NOW, budgets=(budget(0),))
    quota.path_of(desk.home).write_bytes(found.to_json())
    answer = desk.check()
    assert answer.decision == "allow"
    assert "tenant other" in answer.reason


def test_a_damaged_snapshot_is_ignored_and_said(desk: Desk) -> None:
    desk.publish(budget(0))
    path = quota.path_of(desk.home)
    path.write_bytes(path.read_bytes().replace(b'"limit":"0"', b'"limit":"9"'))
    answer = desk.check()
    assert answer.decision == "allow"
    assert "sha256" in answer.reason


def test_a_locked_or_broken_state_leaves_the_snapshots_word(desk: Desk) -> None:
    desk.publish(budget(100, used=Decimal(100)))
    (desk.home.device / "state.db").write_bytes(b"no database" * 100)
    answer = desk.check()
    assert answer.decision == "block"
    assert "could not be read" in answer.notes[0]


def test_a_check_changes_no_file_and_needs_no_state(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.device.mkdir(parents=True)
    found = Snapshot(tenant="acme", region="eu", as_of=NOW, budgets=(budget(100),))
    quota.path_of(home).write_bytes(found.to_json())
    assert check(home, ADA, now=NOW).decision == "allow"
    assert [path.name for path in home.device.iterdir()] == ["quota.json"]


def test_a_check_reads_beside_a_shipping_at_work(desk: Desk) -> None:
    desk.add(use(10))
    desk.publish(budget(100))
    desk.db.execute("BEGIN IMMEDIATE")
    desk.add(use(90))
    answer = desk.check()
    desk.db.execute("ROLLBACK")
    assert (answer.decision, answer.standings[0].local, answer.notes) == ("allow", 10, ())


# fetching -------------------------------------------------------------------------------------------------------------


class PublishedStore:
    """A store that counts what is asked of it."""

    url = "store:"

    def __init__(self, objects: Mapping[str, bytes], *, error: Exception | None = None) -> None:
        self.objects, self.error, self.asked = dict(objects), error, 0

    def put(self, key: str, data: bytes) -> Any:
        raise AssertionError("a fetch puts nothing")

    def get(self, key: str) -> bytes:
        self.asked += 1
        return self.objects[key]

    def list(self, wanted: str) -> Iterator[Entry]:
        if self.error:
            raise self.error
        for key in sorted(key for key in self.objects if key.startswith(wanted)):
            self.asked += 1
            yield Entry(key, len(self.objects[key]), NOW)


GRANT = consent.Consent("c" * 32, "granted", NOW, "include", "")


def published(*snapshots: Snapshot) -> PublishedStore:
    return PublishedStore({snapshot.key: snapshot.to_json() for snapshot in snapshots})


def snapshot(minutes: int = 0, **other: Any) -> Snapshot:
    values: dict[str, Any] = {"tenant": "acme", "region": "eu", "budgets": (budget(100),), **other}
    return Snapshot(as_of=NOW + timedelta(minutes=minutes), **values)


def test_the_newest_is_kept_and_no_more_is_asked_than_needed(desk: Desk) -> None:
    store = published(*(snapshot(minutes) for minutes in range(500)))
    assert fetch(desk.home, ADA, GRANT, store) == "quota as of 2026-11-20 16:49:00 UTC"
    assert store.asked <= 1 + quota.CANDIDATES
    assert desk.check().as_of == NOW + timedelta(minutes=499)
    assert quota.path_of(desk.home).stat().st_mode & 0o077 == 0
    assert fetch(desk.home, ADA, GRANT, published(snapshot(1))).startswith("quota: the one kept here is newer")
    assert desk.check().as_of == NOW + timedelta(minutes=499)


def test_only_what_this_device_needs_is_kept(desk: Desk) -> None:
    others = Counted(device="0" * 32, epoch=EPOCH, ranges=((1, 2),))
    found = snapshot(counted=(others,), budgets=(budget(1, scope="user", user="bob"),))
    fetch(desk.home, ADA, GRANT, published(found))
    assert b"bob" not in quota.path_of(desk.home).read_bytes()
    assert b"0" * 32 not in quota.path_of(desk.home).read_bytes()


def test_a_damaged_or_misplaced_object_hides_no_good_one(desk: Desk) -> None:
    newest, foreign = snapshot(2), snapshot(1, tenant="other")
    store = published(snapshot(0))
    store.objects[newest.key] = newest.to_json().replace(b"acme", b"acne")
    store.objects[foreign.key.replace("/other/", "/acme/")] = foreign.to_json()
    said = fetch(desk.home, ADA, GRANT, store)
    assert said.startswith("quota as of 2026-11-20 08:30:00 UTC; the newest was passed over")
    assert desk.check().as_of == NOW


@pytest.mark.parametrize("error", [StoreUnavailableError("no answer"), StoreRefusedError("403")])
def test_a_store_in_trouble_leaves_the_one_kept(desk: Desk, error: Exception) -> None:
    fetch(desk.home, ADA, GRANT, published(snapshot()))
    assert "stays" in fetch(desk.home, ADA, GRANT, PublishedStore({}, error=error))
    assert desk.check().as_of == NOW


def test_an_empty_store_is_said(desk: Desk) -> None:
    assert fetch(desk.home, ADA, GRANT, PublishedStore({})) == "quota: none is published for tenant acme"


def test_nothing_is_asked_without_consent(desk: Desk) -> None:
    store = published(snapshot())
    with pytest.raises(ValueError, match="consent"):
        fetch(desk.home, ADA, replace(GRANT, state="withdrawn"), store)
    assert store.asked == 0
    assert not quota.path_of(desk.home).exists()


def test_a_folder_serves_as_well(desk: Desk, tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    for minutes in (0, 5):
        store.put(snapshot(minutes).key, snapshot(minutes).to_json())
    near = snapshot(9, tenant="acme-2")
    store.put(near.key, near.to_json())
    assert next(iter(store.list(prefix("eu", "acme")))).key == snapshot(5).key
    fetch(desk.home, ADA, GRANT, store)
    assert desk.check().as_of == NOW + timedelta(minutes=5)


# the whole way --------------------------------------------------------------------------------------------------------


def test_a_shipping_counts_fetches_and_forgets(tmp_path: Path) -> None:
    agents = tmp_path / "hive"
    at = datetime.now(UTC).replace(hour=0, minute=0, second=1, microsecond=0)
    log = queen_folder(agents) / "events.jsonl"
    append(log, dump(*(turn(n, at=(at + timedelta(milliseconds=n)).isoformat()) for n in range(3))))
    made = granted(tmp_path / "apiary", agents, timezone="UTC")
    enrolled = enrolment.require(made.home)
    now = datetime.now(UTC)
    limit = budget(10**6, at=now, used=Decimal(5))

    def answer() -> Any:
        return check(made.home, enrolled, now=datetime.now(UTC)).standings[0]

    def publish(**other: Any) -> None:
        as_of = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=publish.calls)
        publish.calls += 1
        found = Snapshot(tenant="acme", region="eu", as_of=as_of, budgets=(limit,), **other)
        made.store.put(found.key, found.to_json())

    publish.calls = 0
    publish()
    made.ship(agents)
    mine = sum(100 + n + 10 for n in range(3))
    assert (answer().counted, answer().local) == (5, mine)
    with made.state() as state:
        epoch = state.value("epoch")
    publish(counted=(Counted(device=enrolled.device_id, epoch=str(epoch), ranges=((1, 1),)),))
    append(log, dump(turn(3, at=(at + timedelta(milliseconds=3)).isoformat())))
    made.ship(agents)
    assert (answer().counted, answer().local) == (5, 113)
    made.withdraw()
    assert answer().local == 0
    assert SESSION not in quota.path_of(made.home).read_text()


def test_a_store_without_quotas_costs_a_shipping_nothing(tmp_path: Path) -> None:
    agents = tmp_path / "hive"
    append(queen_folder(agents) / "events.jsonl", dump(turn(1)))
    assert granted(tmp_path / "apiary", agents).ship(agents).batches == 1


# speed ----------------------------------------------------------------------------------------------------------------

LIMIT_SECONDS = 0.05
PROGRAM = (
    "import sys; from datetime import UTC, datetime; from pathlib import Path\n"
    "from pipelines.device import enrolment, quota; from pipelines.home import Home\n"
    "home = Home(Path(sys.argv[1])); now = datetime.fromisoformat(sys.argv[2])\n"
    "sys.exit(quota.check(home, enrolment.require(home), now=now).exit_code)\n"
)


def crowded(root: Path) -> Home:
    """A month offline: a batch every 15 minutes, each with turns of two days, and many that wait."""
    made = device(root, timezone="UTC")
    enrolled = enrolment.require(made.home)
    full = new_desk(root)
    for seq in range(1, 30 * 96):
        at = datetime(2026, 11, 1, tzinfo=UTC) + timedelta(minutes=15 * seq)
        full.add(use(1, seq=seq, at=at), use(1, seq=seq, at=at + timedelta(days=1)))
    counted = Counted(device=enrolled.device_id, epoch=EPOCH, ranges=tuple((n, n) for n in range(1, 1000, 2)))
    found = Snapshot(
        tenant="acme", region="eu", as_of=NOW, counted=(counted,),
        budgets=tuple(budget(10**9, measure=measure, period=period) for measure in MEASURES for period in PERIODS),
    )  # fmt: skip
    quota.path_of(made.home).write_bytes(found.to_json())
    full.db.close()
    return made.home


PERIODS: tuple[Period, ...] = ("day", "month")


def best(call: Any, tries: int = 7) -> float:
    """The best of some tries: another job on the machine is not our fault."""
    times = []
    for _ in range(tries):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return min(times)


def test_a_check_takes_fifty_milliseconds_at_most(tmp_path: Path) -> None:
    home = crowded(tmp_path)
    enrolled = enrolment.require(home)
    taken = best(lambda: check(home, enrolled, now=NOW))
    assert taken <= LIMIT_SECONDS, f"{taken * 1000:.1f} ms"


def test_a_whole_process_takes_no_more_beyond_pythons_own_start(tmp_path: Path) -> None:
    home = crowded(tmp_path)
    # As installed: compiled once. The first try compiles, and the best of them counts.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": str(tmp_path / "bytecode")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)

    def run(program: str) -> float:
        arguments = [sys.executable, "-c", program, str(home.root), NOW.isoformat()]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert subprocess.run(arguments, env=environment, check=False, cwd=tmp_path).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    # Processor time: a check waits for nothing, and other jobs on the machine make it wait for them.
    floor, taken = (min(run(program) for _ in range(12)) for program in ("pass", PROGRAM))
    said = f"{taken * 1000:.0f} ms, of which Python's own {floor * 1000:.0f} ms"
    print(said)  # noqa: T201
    # Beside the start of Python on the same machine, some 18 ms: the check and its imports are five to six of them.
    assert taken - floor <= 8 * floor, said


def test_a_check_loads_nothing_heavy() -> None:
    program = "import sys, pipelines.device.quota, pipelines.device.enrolment; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    heavy = {"pyarrow", "boto3", "botocore", "rich", "numpy", "urllib.request"}
    assert not heavy & set(done.stdout.split())
