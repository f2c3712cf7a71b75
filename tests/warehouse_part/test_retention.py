"""Nothing goes unless a number says so; what goes is what is past its time, and bills lose nothing by it."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest
import yaml

from pipelines.errors import UsageError
from pipelines.warehouse import landing, load, retention
from pipelines.warehouse.retention import EXEMPT, LAYERS, Line, Policy
from tests.warehouse_part.batches import CLONE, LAPTOP, START, MemoryStore, batch, row, turn

NOW = START + timedelta(days=100)
DAY = 24 * 60


def policy(**days: int | None) -> Policy:
    return Policy(dict.fromkeys(LAYERS, None) | days, 7, dict.fromkeys(EXEMPT, "it is"))


class Site:
    """Batches of days 0, 50 and 99, one of them refused; an orphan of day 0 and one of day 80."""

    def __init__(self, root: Path) -> None:
        self.store = MemoryStore()
        self.warehouse = root / "apiary.duckdb"
        for seq, day in ((1, 0), (2, 50), (3, 99)):
            tables = {"llm_turns": [turn(seq)], "status_events": [row("status_events", seq)]}
            batch(self.store, tables, seq=seq, minute=day * DAY)
        batch(self.store, {"llm_turns": b"no parquet"}, seq=4, minute=0)
        manifests = {key.rsplit("/", 1)[1][:10]: at for key, at in self.store.received.items() if "/m/" in key}
        for key in self.store.received:
            self.store.received[key] = manifests[key.rsplit("/", 1)[1][:10]]
        prefix = next(key for key in self.store.objects if "/d/" in key).rpartition("/")[0]
        for name, day in (("0000000008-llm_turns-00.parquet", 0), ("0000000009-llm_turns-00.parquet", 88)):
            self.store.put(f"{prefix}/{name}", b"left")
            self.store.received[f"{prefix}/{name}"] = START + timedelta(days=day)
        with duckdb.connect(str(self.warehouse)) as connection:
            load.prepare(connection)
            load.load(connection, self.store, landing.pending(self.store, ()))

    def apply(self, chosen: Policy, *, is_dry: bool = False) -> dict[str, Line]:
        nowhere = self.warehouse.parent / "published"
        lines = retention.apply(self.warehouse, nowhere, self.store, chosen, now=NOW, is_dry=is_dry)
        return {line.layer: line for line in lines}

    def turns(self) -> list[tuple[object, ...]]:
        with duckdb.connect(str(self.warehouse)) as connection:
            return connection.execute("SELECT * FROM wire.llm_turns ORDER BY ALL").fetchall()

    def keys(self) -> set[str]:
        """What lies there, by its place in the chain."""
        return {key.rsplit("/", 1)[1][:10].lstrip("0") for key in self.store.objects}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_without_a_number_nothing_goes(site: Site) -> None:
    before, turns = dict(site.store.objects), site.turns()
    found = site.apply(policy())
    assert {layer: (line.rows, line.objects, line.bytes) for layer, line in found.items()} == dict.fromkeys(
        (*LAYERS[:-1], *EXEMPT), (0, 0, 0)
    )
    assert found["landing"].note == "kept for ever"
    assert found["exports"].note == "exempt: it is"
    assert (site.store.objects, site.turns()) == (before, turns)


def test_each_number_takes_its_layer_and_a_dry_run_says_the_same(site: Site) -> None:
    turns = site.turns()
    chosen = policy(landing=60, quarantine=99, orphans=30, wire_detail=60)
    said = site.apply(chosen, is_dry=True)
    assert len(site.store.objects) == 13
    assert site.apply(chosen) == said
    assert (said["landing"].objects, said["quarantine"].objects, said["orphans"].objects) == (3, 2, 1)
    assert said["landing"].bytes > 1000
    assert said["orphans"].note == "1 unreferenced for more than 7 days"
    assert said["wire_detail"].rows == 1
    assert site.keys() == {"2", "3", "9"}
    assert site.turns() == turns, "bills are made of them"
    again = site.apply(chosen)
    assert [line for line in again.values() if line.objects or line.rows] == []


def test_the_changes_of_a_device_s_time_zone_stay(site: Site) -> None:
    """Local times of what it sent before are resolved in the zone it reported then."""
    zones = ["Europe/Berlin", "Europe/Berlin", "Asia/Tokyo", "Asia/Tokyo"]
    with duckdb.connect(str(site.warehouse)) as connection:
        for device, named in ((LAPTOP, zones), (CLONE, zones[:2])):
            for number, zone in enumerate(named):
                at = START + timedelta(days=number)
                report = row("device_reports", f"{device} {number}", timezone=zone, started_at=at)
                columns = {**report, "tenant_id": "acme", "region": "eu", "_user_id": "ada", "_device_id": device,
                           "_manifest_key": "m", "_received_at": at, "_ingest_seq": 1}  # fmt: skip
                marks = ", ".join("?" * len(columns))
                connection.execute(
                    f"INSERT INTO wire.device_reports ({', '.join(columns)}) VALUES ({marks})", [*columns.values()]
                )
    site.apply(policy(wire_detail=60))
    with duckdb.connect(str(site.warehouse)) as connection:
        kept = connection.execute(
            "SELECT _device_id, timezone, _received_at::DATE - ?::DATE FROM wire.device_reports ORDER BY ALL", [START]
        ).fetchall()
    assert kept == [(LAPTOP, "Asia/Tokyo", 3), (LAPTOP, "Europe/Berlin", 1)]


def test_what_was_let_go_is_loaded_no_more_and_missed_by_nobody(site: Site) -> None:
    site.apply(policy(landing=60))
    with duckdb.connect(str(site.warehouse)) as connection:
        assert landing.pending(site.store, load.known_manifests(connection)) == []
        objects = connection.execute(
            "SELECT object_key FROM wire.batch_objects WHERE object_key IS NOT NULL"
        ).fetchall()
    assert {key for (key,) in objects} <= set(site.store.objects)


def test_what_the_ledger_has_not_answered_stays(site: Site) -> None:
    """However old: it may only now have been brought in."""
    arrival = batch(site.store, {"llm_turns": [turn(7)]}, seq=7, minute=0)
    site.apply(policy(landing=1, quarantine=1))
    assert arrival.key in site.store.objects
    assert site.keys() & {"7"}


def test_a_superseded_publication_goes_and_the_current_stays(tmp_path: Path) -> None:
    published = tmp_path / "published"
    for name in ("old", "new", "current"):
        folder = published / "versions" / name
        folder.mkdir(parents=True)
        (folder / "marts.duckdb").write_bytes(b"12345")
        age = (datetime.now(UTC) - timedelta(days=0 if name == "new" else 9)).timestamp()
        os.utime(folder, (age, age))
    (published / "current").symlink_to("versions/current")
    chosen = policy(published=2)
    lines = retention.apply(tmp_path / "none", published, MemoryStore(), chosen, now=datetime.now(UTC), is_dry=False)
    assert next(line for line in lines if line.layer == "published") == Line("published", 0, 1, 5)
    assert {path.name for path in (published / "versions").iterdir()} == {"new", "current"}


def test_the_policy_of_the_checkout_keeps_all_data() -> None:
    found = retention.load_policy()
    assert {layer for layer, days in found.keep_days.items() if days is None} >= {
        "landing",
        "quarantine",
        "wire_detail",
    }
    assert set(found.exempt) == set(EXEMPT)


@pytest.mark.parametrize(
    "change",
    [
        {"layers.landing.keep_days": 0}, {"layers.landing.keep_days": -1}, {"layers.landing.keep_days": "9"},
        {"layers.landing.keep_days": True}, {"layers.landing.why": ""}, {"layers.orphans.keep_days": 3},
        {"layers.orphans.report_days": None}, {"layers.wire": {"keep_days": 9, "why": "x"}}, {"exempt.wire": None},
        {"exempt.exports": ""}, {"layers": []},
    ],
)  # fmt: skip
def test_settings_that_are_none_delete_nothing(change: dict[str, object], tmp_path: Path) -> None:
    content = yaml.safe_load(retention.POLICY.read_text("utf-8"))
    for path, value in change.items():
        *parents, last = path.split(".")
        place = content
        for parent in parents:
            place = place[parent]
        place[last] = value
    (tmp_path / "retention.yml").write_text(yaml.safe_dump(content))
    with pytest.raises(UsageError, match=r"retention\.yml"):
        retention.load_policy(tmp_path / "retention.yml")
