"""A device is no trusted writer: what does not keep to the contract is refused whole, and the reason tells nothing."""

import hashlib
import json
import math
import random
import re
import string
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from pipelines.contract.keys import Prefix
from pipelines.contract.table import EARLIEST, Column, Keep, Table
from pipelines.contract.wire import BY_NAME, LLM_TURNS, TABLES
from pipelines.warehouse import decode, landing, load
from pipelines.warehouse.decode import RejectedError
from pipelines.warehouse.landing import IncompleteError
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
    read,
    record,
    row,
    turn,
    wire,
)

CANARY = "the-pears-of-acme"
TEXTS = (
    "please find the pears of acme attached", "ada.lovelace@example.com", "/Users/ada/Clients/acme/list.csv",
    r"C:\Users\ada", "KeyError: 'acme'", "Ada", "4917012345678", "", " ", "-", "k1_", f"k1_{'g' * 32}", f"x{'a' * 32}",
    f"{'a' * 32}\n", f"k1_{'a' * 32}\n", f"k1_{'a' * 32} ada", "queen\n", "stop ", "anthropic/acme-secret",
    "acme/claude-3-haiku", "\u0661" * 5, "x" * 10_000,
)  # fmt: skip
# Set by the administrator of a device: any short word fits the pattern.
ENROLLED = {"user_id": r"[a-z0-9][a-z0-9_-]+"}
POOL = pa.proxy_memory_pool(pa.default_memory_pool())  # what was allocated from it must not outlive it
COLUMNS = [(table, column) for table in TABLES for column in table.columns]


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def refusal(store: MemoryStore, *arguments: Any, **options: Any) -> str:
    """The reason why a batch is refused."""
    with pytest.raises(RejectedError) as caught:
        read(store, batch(store, *arguments, **options))
    return str(caught.value)


def refused_rows(table: str, *rows: Row) -> str:
    return refusal(MemoryStore(), {table: rows})


def refused_bytes(data: bytes) -> str:
    return refusal(MemoryStore(), {"llm_turns": data})


def set_in(*path: str | int) -> Callable[[Any], Callable[[Row], object]]:
    """Replace one value of a manifest."""

    def with_value(value: Any) -> Callable[[Row], object]:
        def change(manifest: Any) -> None:
            for step in path[:-1]:
                manifest = manifest[step]
            manifest[path[-1]] = value

        return change

    return with_value


# what is sound --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", BY_NAME)
def test_a_sound_batch_is_read_with_the_types_of_the_contract(store: MemoryStore, table: str) -> None:
    rows = [row(table, 1), row(table, 2)]
    empty = {c.name: None for c in BY_NAME[table].columns if not c.required}
    rows.append(row(table, 3, **empty))
    found = read(store, batch(store, {table: rows}))
    assert found[table].schema == BY_NAME[table].arrow
    assert found[table].to_pylist() == rows


def test_a_batch_without_objects_or_rows_is_sound(store: MemoryStore) -> None:
    assert read(store, batch(store, {})) == {}
    assert read(store, batch(store, {"tasks": []}, seq=2))["tasks"].num_rows == 0


def test_the_bounds_themselves_are_sound(store: MemoryStore) -> None:
    for table in TABLES:
        least = {c.name: c.minimum for c in table.columns if c.type == "int64"}
        most = {c.name: c.maximum for c in table.columns if c.maximum is not None and c.type != "decimal"}
        money = {c.name: Decimal(c.maximum) for c in table.columns if c.type == "decimal" and c.maximum}
        times = {c.name: EARLIEST for c in table.columns if c.type == "timestamp"}
        assert None not in least.values(), "every integer has a least value"
        for _, (_, *others) in table.sums:
            most |= dict.fromkeys(others, 0)  # one part alone may reach what the total may
        batch_of = batch(
            store, {table.name: [row(table.name, 1, **least, **times), row(table.name, 2, **most | money)]}
        )
        assert read(store, batch_of)[table.name].num_rows == 2


# the manifest ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("region", "us"), ("tenant", "bolt"), ("device", CLONE), ("epoch", "f" * 16), ("seq", 2), ("seq", "1"),
        ("tenant", CANARY), ("tenant", ["acme"]), ("device", None),
    ],
)  # fmt: skip
def test_a_manifest_that_disagrees_with_its_key(store: MemoryStore, name: str, value: Any) -> None:
    assert refusal(store, {"llm_turns": [turn()]}, change=set_in(name)(value)) == f"{name}_mismatch"


@pytest.mark.parametrize(
    "user", ["ada@example.com", "Ada", "", "ada/..", "a" * 64, "ada\n", None, 5, ["ada"], CANARY * 9]
)
def test_a_user_that_is_no_slug(store: MemoryStore, user: Any) -> None:
    assert refusal(store, {}, change=set_in("user")(user)) == "bad_user"


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b"[]", b"null", b'"v1"', b"\xff\xfe\x00", b"{}", b'{"protocol": "v2"}', b'{"protocol": ["v1"]}',
        b"[" * 200_000, b'{"a":' * 40_000, b'{"protocol": "v1", "seq": ' + b"1" * 5_000 + b"}", CANARY.encode(),
    ],
    ids=lambda data: data[:12],
)  # fmt: skip
def test_a_manifest_that_is_none(store: MemoryStore, data: bytes) -> None:
    assert refusal(store, {}, data=lambda _: data) == "bad_manifest"


def test_a_manifest_too_large(store: MemoryStore) -> None:
    assert refusal(store, {}, data=lambda body: body + b" " * landing.MAX_MANIFEST_BYTES) == "manifest_too_large"


def test_a_manifest_that_was_swapped_or_cut(store: MemoryStore) -> None:
    arrival = batch(store, {"llm_turns": [turn()]})
    store.objects[arrival.key] = store.objects[arrival.key].replace(b'"ada"', b'"bob"')
    with pytest.raises(RejectedError, match=r"^manifest_hash_mismatch$"):
        read(store, arrival)
    del store.objects[arrival.key]
    with pytest.raises(IncompleteError):
        read(store, arrival)


@pytest.mark.parametrize("objects", [None, {}, "x", 5, [None], ["x"], [[]], [{}] * 17])
def test_a_list_of_objects_that_is_none(store: MemoryStore, objects: Any) -> None:
    assert refusal(store, {}, change=set_in("objects")(objects)) == "bad_objects"


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("rows", decode.MAX_ROWS), ("bytes", landing.MAX_BATCH_BYTES), ("input_tokens", landing.MAX_OBJECT_TOKENS),
        ("output_tokens", landing.MAX_OBJECT_TOKENS),
    ],
)  # fmt: skip
def test_a_claim_that_no_object_can_keep(store: MemoryStore, name: str, most: int) -> None:
    for value, reason in ((most + 1, "bad_objects"), (-1, "bad_objects"), (True, "bad_objects")):
        assert refusal(store, {"llm_turns": [turn()]}, change=set_in("objects", 0, name)(value)) == reason
    arrival = batch(store, {"llm_turns": [turn()]}, change=set_in("objects", 0, name)(most))
    assert landing.read_manifest(store, arrival).claims


def test_a_table_listed_twice(store: MemoryStore) -> None:
    def twice(manifest: Row) -> None:
        manifest["objects"] *= 2

    assert refusal(store, {"llm_turns": [turn()]}, change=twice) == "bad_objects"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("table", "users"), ("table", CANARY), ("table", None), ("table", ["llm_turns"]), ("table", {}), ("table", 1),
        ("schema", "llm_turns/2"), ("schema", "tool_calls/1"), ("schema", None), ("schema", []),
        ("table", "tool_calls"),
    ],
)  # fmt: skip
def test_a_table_or_version_nobody_knows(store: MemoryStore, name: str, value: Any) -> None:
    assert refusal(store, {"llm_turns": [turn()]}, change=set_in("objects", 0, name)(value)) == "unknown_schema"


DIGEST = "0123456789abcdef" * 4
FOREIGN_KEYS = {
    "another tenant's": Prefix("eu", "bolt", LAPTOP, EPOCH).data(1, "llm_turns", DIGEST),
    "another device's": Prefix("eu", "acme", CLONE, EPOCH).data(1, "llm_turns", DIGEST),
    "another batch's": Prefix("eu", "acme", LAPTOP, EPOCH).data(2, "llm_turns", DIGEST),
    "another table's": Prefix("eu", "acme", LAPTOP, EPOCH).data(1, "tool_calls", DIGEST),
    "upwards": f"landing/v1/eu/acme/../bolt/{LAPTOP}/{EPOCH}/d/0000000001-llm_turns-{DIGEST[:16]}.parquet",
    "absolute": "/etc/passwd",
    "nothing": None,
    "a list": [],
}


@pytest.mark.parametrize("key", FOREIGN_KEYS.values(), ids=FOREIGN_KEYS)
def test_an_object_that_is_not_the_batch_s_own(store: MemoryStore, key: Any) -> None:
    """Even when it is there, with that content."""
    body = parquet(frame("llm_turns", [turn()]))
    if isinstance(key, str):
        store.put(key.replace(DIGEST[:16], hashlib.sha256(body).hexdigest()[:16]), body)
        key = key.replace(DIGEST[:16], hashlib.sha256(body).hexdigest()[:16])
    assert refusal(store, {"llm_turns": body}, change=set_in("objects", 0, "key")(key)) == "bad_key"


@pytest.mark.parametrize(
    "digest", ["/../../../../x/y", "\0" * 64, "\ud800" * 64, "A" * 64, "a" * 63, "", None, 7, ["a"], "a/b"]
)
def test_a_digest_that_leads_elsewhere(store: MemoryStore, digest: Any) -> None:
    """A store must not even be asked: a folder would follow `..`, a NUL would end the whole run."""

    def change(manifest: Row) -> None:
        item = manifest["objects"][0]
        item["sha256"] = digest
        item["key"] = Prefix("eu", "acme", LAPTOP, EPOCH).data(1, "llm_turns", str(digest))
        store.objects.setdefault(item["key"], b"")

    assert refusal(store, {"llm_turns": [turn()]}, change=change) == "bad_key"


def test_an_object_that_is_missing_swapped_or_too_large(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    arrival = batch(store, {"llm_turns": [turn()]})
    key = next(key for key in store.objects if key.endswith(".parquet"))
    body = store.objects[key]
    store.objects[key] = body + b"x"
    with pytest.raises(RejectedError, match=r"^hash_mismatch$"):
        read(store, arrival)
    monkeypatch.setattr(landing, "MAX_OBJECT_BYTES", len(body) - 1)
    with pytest.raises(RejectedError, match=r"^object_too_large$"):
        read(store, arrival)
    del store.objects[key]
    with pytest.raises(IncompleteError):
        read(store, arrival)


ODD = (None, [], {}, [[]], 1.5, True, -1, 10**30, "", "\0", "../../..", "\ud800", CANARY, CANARY * 99, float("nan"))


def test_no_manifest_breaks_the_reader(store: MemoryStore) -> None:
    """Test 80: any value anywhere: it is refused, or it is one that nobody reads. Nothing else is raised."""
    arrival = batch(store, {"llm_turns": [turn()]})
    manifest = json.loads(store.objects[arrival.key])
    places = [(name,) for name in manifest] + [("objects", 0, name) for name in manifest["objects"][0]]
    passed: list[tuple[Any, Any]] = []
    told: list[str] = []
    for place in places:
        for value in ODD:
            try:
                read(store, batch(store, {"llm_turns": [turn()]}, change=set_in(*place)(value)))
                passed.append((place[-1], value))
            except RejectedError as error:
                told.append(str(error))
    sound = [("seq", True), ("objects", []), ("user", CANARY), ("bytes", None), ("rows", None)]  # to Python true is one
    assert [(name, value) for name, value in passed if (name, value) not in sound] == []
    assert CANARY not in "".join(told)


# the file -------------------------------------------------------------------------------------------------------------

GOOD = frame("llm_turns", [turn(1), turn(2)])


def replaced(name: str, values: pa.Array, like: pa.Table = GOOD) -> pa.Table:
    return like.set_column(like.schema.get_field_index(name), name, values)


@pytest.mark.parametrize(
    "data", [b"", b"PAR1", b"x" * 100, parquet(GOOD)[:-1], parquet(GOOD)[:-100], parquet(GOOD)[100:], CANARY.encode()]
)
def test_a_file_that_is_no_whole_parquet(data: bytes) -> None:
    assert refused_bytes(data) == "unreadable_object"


@pytest.mark.parametrize(
    "changed",
    [
        GOOD.append_column(CANARY, pa.array(["a", "b"])),
        GOOD.append_column("model", GOOD.column("model")),
        GOOD.drop_columns(["stop_reason"]),
        GOOD.drop_columns(["record_id"]),
        GOOD.rename_columns(["prompt" if name == "model" else name for name in GOOD.column_names]),
        GOOD.select([*GOOD.column_names[1:], "record_id"]),
        GOOD.select(sorted(GOOD.column_names)),
        pa.table({"x": [1]}),
    ],
    ids=["extra", "twice", "missing", "no id", "renamed", "moved", "sorted", "other"],
)
def test_columns_nobody_named(changed: pa.Table) -> None:
    assert refused_bytes(parquet(changed)) == "unknown_columns"


@pytest.mark.parametrize("table", [table for table in TABLES if any(c.is_addition for c in table.columns)], ids=str)
def test_a_device_that_does_not_know_what_was_added_within_the_version(table: Table) -> None:
    whole = frame(table, [row(table.name, 1), row(table.name, 2)])
    added = [column.name for column in table.columns if column.is_addition]
    for absent in (added, added[:1], added[1:]):
        store = MemoryStore()
        arrival = batch(store, {table.name: parquet(whole.drop_columns(absent))})
        rows = read(store, arrival)[table.name]
        assert rows.schema == table.arrow
        for name in table.names:
            expected = [None, None] if name in absent else whole.column(name).to_pylist()
            assert rows.column(name).to_pylist() == expected, name


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("input_tokens", pa.array([1.0, 2.0])),
        ("input_tokens", pa.array(["1", "2"])),
        ("input_tokens", pa.array([1, 2], pa.int32())),
        ("input_tokens", pa.array([1, 2], pa.uint64())),
        ("input_tokens", pa.array([[1], [2]])),
        ("input_tokens", pa.array([None, None], pa.null())),
        ("occurred_at", pa.array(["2026-03-01T00:00:00Z"] * 2)),
        ("occurred_at", pa.array([START] * 2, pa.timestamp("us"))),
        ("occurred_at", pa.array([START] * 2, pa.timestamp("ms", "UTC"))),
        ("reported_cost_usd", pa.array([0.1, 0.2])),
        ("reported_cost_usd", pa.array(["0.1", "0.2"])),
        ("reported_cost_usd", pa.array([Decimal("0.1")] * 2, pa.decimal128(38, 10))),
        ("is_time_ambiguous", pa.array([0, 1])),
        ("model", pa.array([b"x", b"y"])),
        ("model", pa.array([1, 2])),
        ("model", pa.array([{"a": 1}] * 2)),
    ],
)
def test_a_type_that_is_another(name: str, values: pa.Array) -> None:
    for store_schema in (False, True):  # Arrow's own schema in the file must not talk a type into another
        found = refused_bytes(parquet(replaced(name, values), store_schema=store_schema))
        assert found in ("wrong_types", "unknown_columns"), found  # a nested column has names of its own


def test_a_text_that_is_no_text() -> None:
    bad = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe")]
    )
    assert refused_bytes(parquet(replaced("model", bad))) == "unreadable_object"


def test_a_file_that_unpacks_to_more_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """One long text that every row names takes a few bytes in the file."""
    bomb = pa.DictionaryArray.from_arrays(pa.array([0] * 200, pa.int32()), pa.array(["x" * (1 << 20)]))
    rows = replaced("model", bomb, frame("llm_turns", [turn(n) for n in range(200)]))
    data = parquet(rows, dictionary_pagesize_limit=4 << 20)
    assert len(data) < 200_000
    pa.set_memory_pool(POOL)
    try:
        assert refused_bytes(data) == "bad_value:model"
    finally:
        pa.set_memory_pool(pa.default_memory_pool())
    assert 0 < POOL.max_memory() < 64 << 20
    monkeypatch.setattr(decode, "MAX_UNPACKED_BYTES", 1 << 20)
    assert refused_bytes(parquet(rows, use_dictionary=False)) == "object_too_large"


def test_more_rows_than_a_device_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "MAX_ROWS", 1)
    assert refused_bytes(parquet(GOOD)) == "too_many_rows"


def test_a_count_of_rows_that_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    """The footer says how many rows there are, for the file and for each group: neither is believed alone."""
    count = 4_000  # two bytes in the footer, as the number put in its place
    data = parquet(frame("llm_turns", [turn(n) for n in range(count)]))
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    true, small = bytes([0xC0, 0x3E]), bytes([0x80, 0x02])  # 4,000 and 128 as Thrift writes them
    places = [at for at in range(footer, len(data)) if data[at - 1 : at + 2] == b"\x16" + true]
    assert len(places) >= 2
    monkeypatch.setattr(decode, "MAX_ROWS", count - 1)
    for place in places:
        forged = data[:place] + small + data[place + 2 :]
        assert refused_bytes(forged) in ("too_many_rows", "unreadable_object")
    huge = data.replace(b"\x16" + true, b"\x16" + bytes([0xFE, 0x7F]))
    monkeypatch.setattr(decode, "MAX_ROWS", 100_000)
    assert decode.read_rows(huge, LLM_TURNS).num_rows == count, "what is not there is not made up"


def test_no_bit_breaks_the_reader() -> None:
    """A flipped byte is refused, or is a value that the contract allows. Nothing else is raised."""
    rng = random.Random(7)
    good = parquet(frame("llm_turns", [turn(n) for n in range(20)]))
    reasons = set()
    for _ in range(300):
        data = bytearray(good)
        for _ in range(rng.choice((1, 1, 3))):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            decode.check(decode.read_rows(bytes(data), LLM_TURNS), LLM_TURNS)
        except RejectedError as error:
            reasons.add(str(error).partition(":")[0])
    assert "unreadable_object" in reasons


# the values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_null_where_a_value_is_required(table: Table) -> None:
    required = [column.name for column in table.columns if column.required]
    assert required[0] == "record_id"
    for name in required:
        assert refused_rows(table.name, row(table.name, 1), row(table.name, 2, **{name: None})) == f"null_value:{name}"


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_numbers_and_times_out_of_bounds(table: Table) -> None:
    for column in table.columns:
        for value in outside(column):
            totals = dict.fromkeys([total for total, _ in table.sums], 1)
            rows = (row(table.name, 1), row(table.name, 2, **totals | {column.name: value}))
            assert refused_rows(table.name, *rows) == f"out_of_range:{column.name}", value


def outside(column: Column) -> list[Any]:
    match column.type:
        case "int64":
            assert column.minimum is not None
            assert column.maximum is not None
            return [column.minimum - 1, column.maximum + 1, -(2**63), 2**63 - 1]
        case "double":
            return [-0.1, column.maximum + 0.5, math.nan, math.inf, -math.inf]
        case "decimal":
            tiny = Decimal("1e-20")
            return [-tiny, Decimal(column.maximum or 0) + 1, Decimal(-1), Decimal(0), Decimal(10**17)]
        case "timestamp":
            day = timedelta(days=1)
            return [datetime(1969, 12, 31, 23, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC) + day,
                    datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)]  # fmt: skip
    return []


@pytest.mark.parametrize("value", [2**63 - 1, -(2**63), -(2**63) + 1, 253_402_300_800_000_000])
def test_an_instant_that_no_calendar_has(value: int) -> None:
    """The greatest and the least are infinity to the engine."""
    times = pa.array([value, 0], pa.int64()).cast(pa.timestamp("us", "UTC"))
    assert refused_bytes(parquet(replaced("occurred_at", times))) == "out_of_range:occurred_at"


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_a_text_that_redaction_cannot_give(table: Table) -> None:
    for column in table.columns:
        if column.type == "string":
            for text in TEXTS:
                if len(text) < 64 and re.fullmatch(ENROLLED.get(column.name, "(?!)"), text):
                    continue
                rows = (row(table.name, 1), row(table.name, 2, **{column.name: text}))
                assert refused_rows(table.name, *rows) == f"bad_value:{column.name}", text


def test_public_names_travel_in_clear_and_others_do_not(store: MemoryStore) -> None:
    public = {"model": "openrouter/z-ai/glm-5.1", "node_id": "queen", "stream_id": "worker"}
    assert read(store, batch(store, {"llm_turns": [turn(1, **public)]}))["llm_turns"].num_rows == 1
    for name in public:
        assert refused_rows("llm_turns", turn(1, **{name: CANARY})) == f"bad_value:{name}"
    # Names are keyed even when they look like a program's own ids.
    assert refused_rows("llm_turns", turn(1, model="a" * 32)) == "bad_value:model"


def test_every_name_or_id_column_was_tried() -> None:
    kept = {keep for _, column in COLUMNS if column.type == "string" for keep in (column.keep,)}
    assert {Keep.ID, Keep.KEYED_HASH, Keep.VERBATIM, Keep.CLASS} <= kept


# finding them ---------------------------------------------------------------------------------------------------------


def test_pending_is_what_the_ledger_does_not_know_in_order_of_arrival(store: MemoryStore) -> None:
    late = batch(store, {}, seq=1, minute=3 * 24 * 60)
    early = batch(store, {}, seq=2, minute=1)
    known = batch(store, {}, seq=3, minute=0)
    assert landing.pending(store, {known.key}) == [early, late]


@pytest.mark.parametrize(
    "key",
    [
        f"landing/v1/eu/acme/../bolt/{LAPTOP}/{EPOCH}/m/0000000001-{'a' * 16}.json",
        f"landing/v1/eu/../{LAPTOP}/{EPOCH}/m/0000000001-{'a' * 16}.json",
        f"landing/v1/eu/acme/{LAPTOP}/{EPOCH}/m/1-{'a' * 16}.json",
        f"landing/v1/eu/acme/{LAPTOP}/{EPOCH}/d/0000000001-{'a' * 16}.json",
        f"landing/v1/eu/ada@example.com/{LAPTOP}/{EPOCH}/m/0000000001-{'a' * 16}.json",
        f"landing/v1/eu/acme/{LAPTOP}/{EPOCH}/m/0000000001-{'a' * 16}.json.aside",
        f"landing/v1/eu/acme/{LAPTOP}/{EPOCH}/m/0000000001-{'a' * 16}.json\n",
        f"landing/v1/x/eu/acme/{LAPTOP}/{EPOCH}/m/0000000001-{'a' * 16}.json",
        f"landing/v2/eu/acme/{LAPTOP}/{EPOCH}/m/0000000001-{'a' * 16}.json",
    ],
)
def test_a_key_that_is_no_manifest_s_is_never_read(store: MemoryStore, key: str) -> None:
    store.put(key, b"{}")
    assert landing.pending(store, set()) == []


def test_a_refused_batch_is_written_down_and_the_others_of_its_group_load(store: MemoryStore) -> None:
    arrivals = [
        batch(store, {"llm_turns": [turn(1)]}, seq=1),
        batch(store, {"llm_turns": [turn(2, model=CANARY)]}, seq=2),
        batch(store, {"llm_turns": [turn(3)], "tasks": b"x"}, seq=3),
        arrive(store, Prefix("eu", "acme", LAPTOP, EPOCH).manifest(4, "0" * 64), CANARY.encode()),
        batch(store, {"llm_turns": [turn(5)]}, seq=5, change=set_in("table")(CANARY)),
    ]
    with wire() as connection:
        loaded = load.load(connection, store, arrivals)
        books = connection.execute(
            "SELECT seq, status, reason, rows_in, user_id, manifest_sha256 IS NULL FROM wire.batches ORDER BY seq"
        ).fetchall()
        assert books == [
            (1, "loaded", None, 1, "ada", False), (2, "quarantined", "bad_value:model", 0, "ada", False),
            (3, "quarantined", "unreadable_object", 0, "ada", False),
            (4, "quarantined", "manifest_hash_mismatch", 0, None, True), (5, "loaded", None, 1, "ada", False),
        ]  # fmt: skip
        kept = connection.execute("SELECT record_id FROM wire.llm_turns ORDER BY ALL").fetchall()
        assert kept == sorted((record(f"llm_turns {n}"),) for n in (1, 5)), "a batch is refused whole"
        assert (loaded.received, loaded.loaded, loaded.quarantined) == (5, 2, 3)
        assert loaded.reasons == {"bad_value:model": 1, "unreadable_object": 1, "manifest_hash_mismatch": 1}
        assert landing.pending(store, load.known_manifests(connection)) == []
        for name in ("batches", "row_counts", "conflicts", "touched_sessions", "llm_turns"):
            assert CANARY not in str(connection.execute(f"SELECT * FROM wire.{name}").fetchall())


def test_no_reason_holds_more_than_the_contract_s_own_words() -> None:
    words = set(string.ascii_lowercase + string.digits + "_:")
    names = {column.name for _, column in COLUMNS}
    for reason in (
        refused_rows("llm_turns", turn(1, session_id=CANARY)),
        refused_rows("llm_turns", turn(1, input_tokens=-1)),
        refused_bytes(parquet(GOOD.append_column(CANARY, pa.array(["a", "b"])))),
    ):
        assert set(reason) <= words
        _, _, column = reason.partition(":")
        assert not column or column in names
