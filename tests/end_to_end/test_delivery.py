"""However a home is sent, the marts are the same, and they are the truth: twice, in halves, cloned, in any order."""

import random
import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from pipelines.home import Home
from pipelines.simulate.homes import HomeSpec, Truth, write_home
from pipelines.store import open_store
from pipelines.warehouse import landing, load
from tests.end_to_end.driving import device, send
from tests.warehouse import Marts, Warehouse

pytestmark = pytest.mark.services

LAYOUTS = ["v2", *(pytest.param(name, marks=pytest.mark.long) for name in ("doc", "v3"))]
# These say how often lines were sent and by how many devices, which is what the tests below change.
TOKENS = ("input_tokens", "cache_read_input_tokens", "cache_write_input_tokens", "output_tokens")
ABOUT_DELIVERY = {"mart_dedupe_ledger", "dim_tenants"}


@pytest.fixture(params=LAYOUTS)
def spec(request: pytest.FixtureRequest) -> HomeSpec:
    return HomeSpec(
        layout=request.param, seed=5, timezone="Europe/Berlin", first_day=date(2026, 3, 27), days=3, turns_per_session=3
    )


@pytest.fixture
def agents(tmp_path: Path, spec: HomeSpec) -> Path:
    write_home(tmp_path / "hive", spec)
    return tmp_path / "hive"


@pytest.fixture
def truth(tmp_path: Path, spec: HomeSpec) -> Truth:
    return write_home(tmp_path / "truth", spec)


@pytest.fixture
def store(tmp_path: Path) -> str:
    return (tmp_path / "store").as_uri()


@pytest.fixture
def new_device(tmp_path: Path, store: str) -> Callable[..., Home]:
    def make(name: str, **options: object) -> Home:
        return device(tmp_path / name, store=store, zone="Europe/Berlin", **options)

    return make


def business(warehouse: Warehouse) -> Marts:
    """Every mart but those about delivery, without the name of the evidence that a time rests on: a file that is cut
    in half has another time of change, and of two pieces of evidence that agree another one speaks."""
    found = {}
    for name, rows in warehouse.marts().items():
        if name not in ABOUT_DELIVERY:
            places = [place for place, column in enumerate(warehouse.columns(name)) if column != "time_basis"]
            found[name] = [tuple(row[place] for place in places) for row in rows]
    return found


def difference(found: Marts, expected: Marts) -> list[tuple[str, str, tuple[object, ...]]]:
    """Rows that only one side has, a few per mart."""
    only = []
    for mart in sorted(found.keys() | expected.keys()):
        ours, theirs = set(found.get(mart, [])), set(expected.get(mart, []))
        only += [(mart, "unexpected", row) for row in sorted(ours - theirs, key=str)[:3]]
        only += [(mart, "missing", row) for row in sorted(theirs - ours, key=str)[:3]]
    return only


EXPECTED: dict[str, Marts] = {}


@pytest.fixture
def expected(
    agents: Path, spec: HomeSpec, new_device: Callable[..., Home], store: str, warehouse: Warehouse, tmp_path: Path
) -> Marts:
    """The marts of one device that sends the whole home at once; made once per layout."""
    key = tmp_path / "tenant.key"
    key.write_text("ab" * 32)
    if spec.layout not in EXPECTED:
        send(new_device("once", key=key), agents)
        warehouse.ingest(store)
        warehouse.run_counts()
        EXPECTED[spec.layout] = business(warehouse)
        warehouse.reset()
        shutil.rmtree(tmp_path / "store")
    return EXPECTED[spec.layout]


def test_marts_are_the_truth(
    agents: Path, new_device: Callable[..., Home], store: str, warehouse: Warehouse, truth: Truth
) -> None:
    send(new_device("device"), agents)
    warehouse.ingest(store)
    warehouse.run_counts()
    names = ("turns", *TOKENS, "tool_calls", "unreported_turns")
    sums = ", ".join(f"sum({name})::bigint" for name in names)
    for column, expected in (
        ("usage_date", truth.by_utc_day), ("agent_kind", truth.by_agent_kind), ("session_id", truth.by_session),
        ("model", truth.by_model),
    ):  # fmt: skip
        rows = warehouse.query(
            f"SELECT {column}, {sums}, coalesce(sum(reported_cost_usd), 0)"
            " FROM marts.agg_usage_session_daily GROUP BY 1"
        )
        found = {row[0]: row[1:] for row in rows}
        wanted = {
            key: (*(getattr(usage, name) for name in names), usage.reported_cost_usd) for key, usage in expected.items()
        }
        for key in found.keys() - wanted.keys():
            assert str(key).startswith("k1_"), key
        for key in wanted.keys() & found.keys():
            assert found[key] == wanted[key], key
        keyed = sorted(found[key] for key in found.keys() - wanted.keys())
        assert keyed == sorted(wanted[key] for key in wanted.keys() - found.keys())


@pytest.mark.long
def test_sent_twice(
    expected: Marts, agents: Path, new_device: Callable[..., Home], store: str, warehouse: Warehouse, tmp_path: Path
) -> None:
    sender = new_device("device", key=tmp_path / "tenant.key")
    send(sender, agents)
    warehouse.ingest(store)
    warehouse.run_counts()
    again = send(sender, agents)
    assert again.rows == 1, "a second shipping sends its report and nothing else"
    warehouse.ingest(store)
    warehouse.run_counts()
    assert "\n".join(map(str, difference(business(warehouse), expected))) == ""


@pytest.mark.long
def test_sent_in_halves(
    expected: Marts, agents: Path, new_device: Callable[..., Home], store: str, warehouse: Warehouse, tmp_path: Path
) -> None:
    """The first half ends in the middle of lines, and of sessions."""
    growing = tmp_path / "growing"
    shutil.copytree(agents, growing)
    for log in growing.rglob("*.jsonl"):
        data = log.read_bytes()
        log.write_bytes(data[: len(data) // 2])
    sender = new_device("device", key=tmp_path / "tenant.key")
    send(sender, growing)
    warehouse.ingest(store)
    warehouse.run_counts()
    shutil.copytree(agents, growing, dirs_exist_ok=True)
    send(sender, growing)
    warehouse.ingest(store)
    warehouse.run_counts()
    assert "\n".join(map(str, difference(business(warehouse), expected))) == ""


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.long)])
def test_sent_session_by_session_in_any_order(
    expected: Marts,
    agents: Path,
    new_device: Callable[..., Home],
    store: str,
    warehouse: Warehouse,
    tmp_path: Path,
    seed: int,
) -> None:
    """A fork may arrive long before its original, steps long before the events that retract them."""
    growing = tmp_path / "growing"
    files = sorted(path for path in agents.rglob("*") if path.is_file())
    random.Random(seed).shuffle(files)
    sender = new_device("device", key=tmp_path / "tenant.key")
    for part in range(3):
        for path in files[part::3]:
            target = growing / path.relative_to(agents)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
        send(sender, growing)
        warehouse.ingest(store)
        warehouse.run_counts()
    assert "\n".join(map(str, difference(business(warehouse), expected))) == ""


def test_sent_from_a_cloned_disk(
    expected: Marts, agents: Path, new_device: Callable[..., Home], store: str, warehouse: Warehouse, tmp_path: Path
) -> None:
    for name in ("laptop", "clone"):
        send(new_device(name, key=tmp_path / "tenant.key"), agents)
    loaded = warehouse.ingest(store)
    warehouse.run_counts()
    assert "\n".join(map(str, difference(business(warehouse), expected))) == ""
    assert loaded.rows_conflict == 0
    assert loaded.rows_duplicate > 0


@pytest.mark.long
def test_clones_without_a_shared_key_count_once(
    expected: Marts, agents: Path, new_device: Callable[..., Home], store: str, warehouse: Warehouse, truth: Truth
) -> None:
    for name in ("laptop", "clone"):
        send(new_device(name), agents)
    assert warehouse.ingest(store).rows_conflict == 0
    warehouse.run_counts()
    found = warehouse.query("SELECT sum(turns), sum(input_tokens), sum(tool_calls) FROM marts.agg_usage_tenant_daily")
    assert found == [(truth.total.turns, truth.total.input_tokens, truth.total.tool_calls)]


@pytest.mark.long
def test_batches_arriving_in_reverse(
    expected: Marts, agents: Path, new_device: Callable[..., Home], store: str, warehouse: Warehouse, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("pipelines.device.spool.MAX_ROWS", 40)
    for name in ("laptop", "clone"):
        send(new_device(name, key=tmp_path / "tenant.key"), agents)
    opened = open_store(store)
    with warehouse.connect() as connection:
        arrivals = landing.pending(opened, load.known_manifests(connection))
        assert len(arrivals) > 10
        for arrival in reversed(arrivals):
            load.load(connection, opened, [arrival])
    warehouse.run_counts()
    assert "\n".join(map(str, difference(business(warehouse), expected))) == ""
