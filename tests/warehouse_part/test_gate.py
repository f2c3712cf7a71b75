"""A file may be made to break whoever opens it: the child dies, the parent names the batch and goes on."""

import io
import json
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.contract.keys import Prefix
from pipelines.warehouse import gate, landing, load, registry
from pipelines.warehouse.gate import DiedError, Judged
from pipelines.warehouse.landing import Arrival, FetchedBatch
from tests.warehouse_part.batches import (
    CLONE,
    EPOCH,
    LAPTOP,
    START,
    MemoryStore,
    Row,
    arrive,
    batch,
    frame,
    parquet,
    row,
    turn,
    wire,
)
from tests.warehouse_part.bombs import BOMBS, LARGE_BOMBS, lying_counts

EXPECTED = {
    "gate_crash",
    "unreadable_object",
    "object_too_large",
    "too_many_rows",
    "footer_too_large",
    "unknown_columns",
}


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def reasons(judged: Judged) -> dict[int, str]:
    return {fetched_batch.arrival.parts.seq: reason for fetched_batch, reason in judged.refused}


def sound(judged: Judged) -> set[int]:
    return {fetched_batch.arrival.parts.seq for part in judged.parts for fetched_batch in part.fetched}


def child_of(found: gate.Gate) -> Any:
    """The child that takes the next job."""
    child = found._free.get()
    found._free.put(child)
    return child


def throw(store: MemoryStore, bombs: Sequence[bytes]) -> tuple[Judged, float]:
    """Bombs with a sound batch before, between and behind them."""
    fetched = []
    for seq, thrown in enumerate([None, *(part for bomb in bombs for part in (bomb, None))], start=1):
        content = {"llm_turns": [turn(seq)] if thrown is None else thrown}
        fetched.append(landing.fetch(store, batch(store, content, seq=seq)))
    begun = time.monotonic()
    judged = gate.shared().judge(tuple(fetched))
    return judged, time.monotonic() - begun


looks_into_proc = pytest.mark.skipif(sys.platform != "linux", reason="a child's limits are read from /proc")


def thrown(store: MemoryStore, makers: dict[str, Callable[[], bytes]]) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, make in makers.items():
        judged, seconds = throw(MemoryStore(), [make()])
        assert set(reasons(judged).values()) <= EXPECTED, name
        assert reasons(judged).keys() == {2}, name
        assert sound(judged) == {1, 3}, f"{name}: who stands beside a bomb is not hurt"
        assert seconds < 20, name
        process = child_of(gate.shared())._process
        peak = next(line for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if "VmHWM" in line)
        assert int(peak.split()[1]) < 1 << 20, f"{name}: more than 1 GiB"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >= before


@pytest.mark.services
@looks_into_proc
def test_bombs_cost_a_child_and_their_own_batch(store: MemoryStore) -> None:
    """Test 45: bombs that are made in a moment."""
    thrown(store, BOMBS)


@pytest.mark.long
@looks_into_proc
def test_large_bombs(store: MemoryStore) -> None:
    """Test 45: 50 million rows, values of 1.5 GB, a dictionary of 1 GB."""
    thrown(store, LARGE_BOMBS)


def test_counts_that_lie(store: MemoryStore) -> None:
    """Test 45: forged numbers of values and rows, in pages and in the footer."""
    forged = list(lying_counts())
    assert len(forged) > 50
    judged, _ = throw(store, forged)
    assert set(reasons(judged).values()) <= EXPECTED
    honest = set(range(1, 2 * len(forged) + 2, 2))
    assert honest <= sound(judged)
    for part in judged.parts:
        for count in part.counts["llm_turns"]:
            assert count in (0, 1, 4_000), "what is not there is not made up"


def fuzzed(count: int, seed: int) -> None:
    """Bytes of a sound file are flipped, cut off or repeated, under a hash that says so and under one that does not."""
    rng = random.Random(seed)
    good = parquet(frame("llm_turns", [turn(n) for n in range(20)]))
    process = os.getpid()
    answered = 0
    for start in range(0, count, 256):
        store, fetched = MemoryStore(), []
        for seq in range(start, min(start + 256, count)):
            data = bytearray(good)
            match rng.randrange(4):
                case 0:
                    del data[rng.randrange(len(data)) :]
                case 1:
                    at = rng.randrange(len(data))
                    data[at:at] = data[at : at + rng.randrange(64)]
                case _:
                    for _ in range(rng.choice((1, 1, 4, 32))):
                        data[rng.randrange(len(data))] = rng.randrange(256)
            arrival = batch(store, {"llm_turns": bytes(data)}, seq=seq)
            fetched.append(landing.fetch(store, arrival))
            (key,) = (claim.key for claim in fetched[-1].manifest.claims)
            store.objects[key] = good if rng.random() < 0.5 else bytes(data) + b"x"
            if store.objects[key] != bytes(data):
                with pytest.raises(landing.RefusedError, match="hash_mismatch"):
                    landing.fetch(store, arrival)
        judged = gate.shared().judge(tuple(fetched))
        assert not sound(judged) & reasons(judged).keys()
        answered += len(sound(judged)) + len(reasons(judged))
        for part in judged.parts:
            part.tables["llm_turns"].validate(full=True)
    assert answered == count, f"seed {seed}"
    assert os.getpid() == process


def test_no_bit_breaks_the_gate() -> None:
    """Test 46, a sample: loaded only when the hash says so, else a reason; the parent lives."""
    fuzzed(600, seed=46)


@pytest.mark.long
def test_no_bit_of_many_breaks_the_gate() -> None:
    """Test 46: 100,000 cases."""
    fuzzed(100_000, seed=int(os.environ.get("APIARY_SEED", "1")))


# who dies, and who does not -------------------------------------------------------------------------------------------


class Mortal:
    """A child that dies of some batches: of each in one way, and sometimes without telling which one it was."""

    def __init__(self, deadly: dict[int, str], *, tells: bool) -> None:
        self.deadly, self.tells, self.jobs = deadly, tells, 0

    def decode(self, job: Sequence[FetchedBatch], judged: Judged) -> int:
        self.jobs += 1
        for at, fetched_batch in enumerate(job):
            if (reason := self.deadly.get(fetched_batch.arrival.parts.seq)) is not None:
                raise DiedError(reason, at if self.tells or reason == "gate_timeout" else None)
        judged.parts.append(gate.Part(tuple(job), {}, {}))
        return len(job)


@settings(max_examples=50, deadline=None)
@given(
    st.integers(1, 40),
    st.dictionaries(st.integers(0, 39), st.sampled_from(["gate_crash", "gate_timeout"]), max_size=6),
    st.booleans(),
)
def test_exactly_the_culprits_are_refused(count: int, deadly: dict[int, str], tells: bool) -> None:
    fetched = tuple(
        SimpleNamespace(arrival=SimpleNamespace(parts=SimpleNamespace(seq=number))) for number in range(count)
    )
    mortal = Mortal(deadly, tells=tells)
    judged = gate._judge(mortal, fetched)
    guilty = {seq: reason for seq, reason in deadly.items() if seq < count}
    assert reasons(judged) == guilty
    assert sound(judged) == set(range(count)) - guilty.keys()
    assert mortal.jobs <= 1 + 2 * len(guilty) * (1 + count.bit_length())


def test_a_child_that_is_killed_between_jobs_is_started_again(store: MemoryStore) -> None:
    """Arrow h: a child that dies of the machine's trouble costs nothing."""
    fetched = tuple(landing.fetch(store, batch(store, {"llm_turns": [turn(n)]}, seq=n)) for n in range(1, 4))
    assert sound(gate.shared().judge(fetched)) == {1, 2, 3}
    process = child_of(gate.shared())._process
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    judged = gate.shared().judge(fetched)
    assert (sound(judged), reasons(judged)) == ({1, 2, 3}, {})


def test_a_child_that_stands_still_is_ended(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = tuple(landing.fetch(store, batch(store, {"llm_turns": [turn(n)]}, seq=n)) for n in range(1, 3))
    gate.shared().judge(fetched)
    monkeypatch.setattr(gate, "WALL_SECONDS", 0.6)
    os.kill(child_of(gate.shared())._process.pid, signal.SIGSTOP)
    judged = gate.shared().judge(fetched[:1])
    assert reasons(judged) == {1: "gate_timeout"}
    monkeypatch.undo()
    assert sound(gate.shared().judge(fetched)) == {1, 2}, "the next one has a child again"


@looks_into_proc
def test_a_child_has_no_credentials_and_no_way_out(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the-pears-of-acme")
    own = gate.Gate()
    try:
        own.judge((landing.fetch(store, batch(store, {"llm_turns": [turn(1)]})),))
        place = Path("/proc") / str(child_of(own)._process.pid)
        told = (place / "environ").read_bytes().split(b"\0")
        assert {entry.partition(b"=")[0].decode() for entry in told if entry} <= {*gate.ENVIRONMENT, "LD_LIBRARY_PATH"}
        limits = (place / "limits").read_text()
        for line in (
            "Max address space        1073741824 ",
            "Max file size            0 ",
            "Max core file size       0 ",
        ):
            assert " ".join(line.split()) in " ".join(limits.split())
    finally:
        own.close()


def test_what_a_child_says_is_checked() -> None:
    """A file may take the child over: its answer is then the file's."""
    fetched_batch = SimpleNamespace(arrival=SimpleNamespace(parts=SimpleNamespace(seq=1)))
    rows = frame("llm_turns", [turn(1)])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as stream:
        stream.write_table(rows)
    for said in (
        {"done": 2, "reasons": [], "counts": {}}, {"done": 0, "reasons": [], "counts": {}}, [], {"done": 1},
        {"done": 1, "reasons": [[0, "SELECT 1; the-pears-of-acme"]], "counts": {}},
        {"done": 1, "reasons": [], "counts": {"users": [[0, 1]]}},
        {"done": 1, "reasons": [], "counts": {"llm_turns": [[0, 2]]}},
        {"done": 1, "reasons": [], "counts": {"llm_turns": [[5, 1]]}},
        {"done": 1, "reasons": [], "counts": {"tool_calls": [[0, 1]]}},
    ):  # fmt: skip
        parts = [json.dumps(said).encode(), sink.getvalue().to_pybytes()]
        left = b"".join(gate.LENGTH.pack(len(part)) + part for part in parts)
        process = SimpleNamespace(stdout=io.BytesIO(left))
        with pytest.raises((ValueError, LookupError, TypeError)):
            gate._take(process, [fetched_batch], Judged())


# exact reasons --------------------------------------------------------------------------------------------------------


def refusal(connection: Any, store: MemoryStore, arrival: Arrival, folder: Path) -> str:
    load.load(connection, store, [arrival], admission=registry.admission_policy(folder, store))
    found = connection.execute("SELECT reason FROM wire.batches WHERE manifest_key = ?", [arrival.key]).fetchone()
    return str(found[0])


def test_each_forgery_has_its_reason(store: MemoryStore, tmp_path: Path) -> None:
    """Test 47: tenant, device, revoked device, schema, columns, types, numbers; through the whole load."""
    registry.admit(tmp_path, CLONE, tenant="bolt", region="eu")
    registry.revoke(tmp_path, "d" * 32, since=START)
    good = frame("llm_turns", [turn(1)])

    def with_column(name: str, values: pa.Array) -> dict[str, bytes]:
        return {"llm_turns": parquet(good.set_column(good.schema.get_field_index(name), name, values))}

    def said(name: str, value: object) -> Callable[[Row], object]:
        return lambda manifest: manifest.__setitem__(name, value)

    huge = pa.array([2**63], pa.uint64())
    forged: list[tuple[str, Any, dict[str, Any]]] = [
        ("tenant_mismatch", {}, {"change": said("tenant", "bolt")}),
        ("device_mismatch", {}, {"change": said("device", CLONE)}),
        ("foreign_device", {}, {"device": CLONE}),
        ("revoked_device", {}, {"device": "d" * 32}),
        ("unknown_schema", {"tasks": []}, {"change": lambda m: m["objects"][0].update(schema="tasks/2")}),
        ("unknown_columns", {"llm_turns": parquet(good.append_column("prompt", pa.array(["x"])))}, {}),
        ("unknown_columns", {"llm_turns": parquet(good.rename_columns(["x", *good.column_names[1:]]))}, {}),
        ("wrong_types", with_column("input_tokens", pa.array([1.0])), {}),
        ("wrong_types", with_column("input_tokens", huge), {}),
        ("out_of_range:input_tokens", {"llm_turns": [turn(1, input_tokens=-1)]}, {}),
        ("out_of_range:input_tokens", {"llm_turns": [turn(1, input_tokens=2**63 - 1)]}, {}),
        ("out_of_range:duration_seconds", {"tool_calls": [tool(float("nan"))]}, {}),
        ("out_of_range:reported_cost_usd", {"llm_turns": [turn(1, reported_cost_usd=Decimal(-1))]}, {}),
        ("rows_mismatch", {"llm_turns": [turn(1)]}, {"change": lambda m: m["objects"][0].update(rows=2)}),
        ("sum_mismatch", {"llm_turns": [turn(1)]}, {"change": lambda m: m["objects"][0].update(input_tokens=99)}),
        ("sum_mismatch", {"tasks": []}, {"change": lambda m: m["objects"][0].update(output_tokens=0)}),
        ("size_mismatch", {"llm_turns": [turn(1)]}, {"change": lambda m: m["objects"][0].update(bytes=1)}),
    ]
    with wire() as connection:
        for seq, (reason, tables, options) in enumerate(forged):
            assert refusal(connection, store, batch(store, tables, seq=seq, **options), tmp_path) == reason, seq
        assert connection.execute("SELECT count(*) FROM wire.llm_turns").fetchone() == (0,)
        registry.close(tmp_path, is_closed=True)
        assert refusal(connection, store, batch(store, {}, seq=99), tmp_path) == "unknown_device"


def tool(seconds: float) -> Row:
    return row("tool_calls", 1, duration_seconds=seconds)


ODD_PARTS = ("..", "%2e%2e", "\uff0e\uff0e", "a\u0301cme", "\u0430cme", "a" * 1_024, "a/b", "a\0b", "a\n", "", " ", "*")


@pytest.mark.parametrize("odd", ODD_PARTS, ids=ascii)
def test_keys_have_one_grammar(store: MemoryStore, odd: str) -> None:
    """Test 48: a key of another form is never read as a manifest, and never asked for as an object."""
    good = f"landing/v1/eu/acme/{LAPTOP}/{EPOCH}/m/0000000001-{'a' * 16}.json"
    for part in ("eu", "acme", LAPTOP, EPOCH, "0000000001", "a" * 16):
        key = good.replace(f"/{part}", f"/{odd}", 1) if f"/{part}" in good else good.replace(part, odd, 1)
        store.put(key, b"{}")
    assert landing.pending(store, set()) == []
    asked: list[str] = []
    get = store.get
    store.get = lambda key, **options: asked.append(key) or get(key, **options)
    key = Prefix("eu", odd or "x", LAPTOP, EPOCH).data(1, "llm_turns", "a" * 64)
    arrival = batch(store, {"llm_turns": [turn(1)]}, change=lambda m: m["objects"][0].update(key=key))
    with pytest.raises(landing.RefusedError, match=r"^bad_key$"):
        landing.fetch(store, arrival)
    assert asked == [arrival.key]


def test_a_manifest_names_few_objects_that_are_there(store: MemoryStore) -> None:
    """Test 50: a missing or changed object, and a million of them: a reason, and nothing is loaded in part."""
    tables = {"llm_turns": [turn(1)], "tasks": b"x"}
    with wire() as connection:
        changed = batch(store, {"llm_turns": [turn(1)], "tool_calls": [tool(1.0)]}, seq=1)
        (key,) = (key for key in store.objects if "tool_calls" in key)
        store.objects[key] += b"x"
        partly = batch(store, tables, seq=2)
        items = [{"key": "x", "table": "llm_turns", "schema": "llm_turns/1", "sha256": "a" * 64}] * 1_000_000
        many = batch(store, {}, seq=3, change=lambda manifest: manifest.update(objects=items))
        some = batch(store, {}, seq=4, change=lambda manifest: manifest.update(objects=items[:1_000]))
        missing = batch(store, {"llm_turns": [turn(9)]}, seq=5)
        (key,) = (key for key in store.objects if "0000000005-llm_turns" in key)
        del store.objects[key]
        loaded = load.load(connection, store, [changed, partly, many, some, missing])
        assert (loaded.quarantined, loaded.incomplete, loaded.rows_new) == (4, 1, 0)
        found = connection.execute("SELECT seq, reason FROM wire.batches ORDER BY seq").fetchall()
        assert found == [(1, "hash_mismatch"), (2, "unreadable_object"), (3, "manifest_too_large"), (4, "bad_objects")]
        for table in ("llm_turns", "tool_calls", "tasks"):
            assert connection.execute(f"SELECT count(*) FROM wire.{table}").fetchone() == (0,)


def test_an_object_larger_than_allowed_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The size is known before the bytes are: a store is never asked for more than the limit."""
    from pipelines.store import FolderStore, TooLargeError

    store = FolderStore(tmp_path)
    store.put("a", b"x" * 100)
    assert store.get("a", limit=100) == b"x" * 100
    with pytest.raises(TooLargeError):
        store.get("a", limit=99)
    memory = MemoryStore()
    monkeypatch.setattr(landing, "MAX_OBJECT_BYTES", 100)
    with pytest.raises(landing.RefusedError, match="object_too_large"):
        landing.fetch(memory, batch(memory, {"llm_turns": [turn(1)]}))
    monkeypatch.setattr(landing, "MAX_MANIFEST_BYTES", 10)
    with pytest.raises(landing.RefusedError, match="manifest_too_large"):
        landing.fetch(memory, arrive(memory, Prefix("eu", "acme", LAPTOP, EPOCH).manifest(4, "0" * 64), b"x" * 11))


def test_coverage_that_does_not_add_up_costs_its_own_batch(store: MemoryStore) -> None:
    """A device that lies about its lines would else fail the balance of everybody's books."""
    lies = row("source_files", 1, lines_seen=4)
    with wire() as connection:
        first = batch(store, {"source_files": [row("source_files", 2), lies]}, seq=1)
        second = batch(store, {"source_files": [row("source_files", 3)]}, device=CLONE)
        done = load.load(connection, store, [first, second])
        assert (done.loaded, done.reasons) == (1, {"unbalanced:lines_seen": 1})
        assert connection.execute("SELECT count(*) FROM wire.source_files").fetchone() == (1,)


def test_what_a_killed_gate_leaves_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders of the living, of others and those being made stay."""
    monkeypatch.setattr(gate.tempfile, "tempdir", str(tmp_path))
    living, dead, young = gate.Gate(), tmp_path / f"{gate.PREFIX}dead", tmp_path / f"{gate.PREFIX}young"
    try:
        for folder in (dead, young, tmp_path / "other"):
            folder.mkdir()
            (folder / "progress-0").write_bytes(bytes(8))
        for folder in (living._folder, dead, tmp_path / "other"):
            os.utime(folder, (time.time() - 3_600,) * 2)
        gate.Gate().close()
        assert sorted(tmp_path.iterdir()) == sorted([living._folder, young, tmp_path / "other"])
    finally:
        living.close()
    assert not living._folder.exists()
