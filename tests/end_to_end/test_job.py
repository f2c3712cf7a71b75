"""The whole job as a program: it publishes, it does nothing twice, and a gate that fails leaves yesterday in place."""

import json
from datetime import date
from decimal import Decimal
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from pipelines.device import enrolment
from pipelines.home import Home
from pipelines.simulate.homes import HomeSpec, Truth, write_home
from tests.end_to_end.driving import apiary, device, send


class Site:
    """One machine that is device and warehouse."""

    def __init__(self, root: Path) -> None:
        spec = HomeSpec(layout="v2", seed=11, timezone="Asia/Kolkata", first_day=date(2026, 3, 1), days=2)
        self.truth: Truth = write_home(root / "hive", spec)
        self.home = Home(root / "apiary")
        send(device(self.home.root, store=self.home.store_url, zone="Asia/Kolkata"), root / "hive")
        self.first = apiary(self.home.root, "run")

    @property
    def versions(self) -> list[str]:
        return sorted(str(path.relative_to(self.home.exports)) for path in self.home.exports.rglob("manifest.json"))

    @property
    def current(self) -> str:
        return (self.home.published / "current").resolve().name


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"))


def test_usage_is_the_truth_and_clean_json(site: Site) -> None:
    result = apiary(site.home.root, "usage", "--by", "day", "--json")
    rows = json.loads(result.stdout)
    assert result.stderr == ""
    assert {row["day"]: row["turns"] for row in rows} == {
        day.isoformat(): usage.turns for day, usage in site.truth.by_utc_day.items()
    }
    cost = sum(Decimal(row["reported_cost_usd"]) for row in rows if row["reported_cost_usd"])
    assert cost == site.truth.total.reported_cost_usd


def test_the_run_tells_its_steps(site: Site) -> None:
    assert site.first.stdout == ""
    for step in ("load what arrived", "gate: arrival", "build and test", "gate: departure", "publish", "export"):
        assert f"ok      {step}" in site.first.stderr


def test_every_mart_is_published_twice_the_same(site: Site) -> None:
    folder = site.home.published / "current"
    with duckdb.connect(str(folder / "marts.duckdb"), read_only=True) as connection:
        tables = [name for (name,) in connection.execute("SHOW TABLES").fetchall()]
        assert {f"{name}.parquet" for name in tables} == {path.name for path in folder.glob("*.parquet")}
        assert len(tables) >= 12
        for name in tables:
            columns = [column for (column, *_) in connection.execute(f"DESCRIBE {name}").fetchall()]
            assert not [column for column in columns if column.startswith("_")]
            file = str(folder / f"{name}.parquet")
            differing = connection.execute(
                f"SELECT count(*) FROM (FROM {name} EXCEPT ALL FROM read_parquet(?))", [file]
            ).fetchone()
            assert differing == (0,)


def test_e2_statements_verify_and_their_tokens_are_the_truth(site: Site) -> None:
    """Files = marts = events: every token that was used is in a cost row, or is said to have no price."""
    verified = apiary(site.home.root, "verify", str(site.home.exports))
    assert verified.stdout.splitlines()[-1].endswith(" 0 faults")
    tokens = Decimal(0)
    for manifest_path in (site.home.exports / "daily").rglob("manifest.json"):
        rows = pq.read_table(manifest_path.parent / "focus_cost_and_usage.parquet").to_pylist()
        unpriced = pq.read_table(manifest_path.parent / "unpriced.parquet").to_pylist()
        tokens += sum(row["ConsumedQuantity"] for row in rows) + sum(row["quantity"] for row in unpriced)
        assert json.loads(manifest_path.read_text())["rows"] == len(rows)
    assert tokens == site.truth.total.input_tokens + site.truth.total.output_tokens


def test_i5_nothing_people_wrote_is_in_a_statement(site: Site) -> None:
    files = [path.read_bytes() for path in site.home.exports.rglob("*") if path.is_file()]
    assert files
    assert site.truth.private
    assert [text for text in site.truth.private if any(text.encode() in data for data in files)] == []


@pytest.mark.long  # three runs of the whole job; tests/quality has the gates, tests/defs what they block
def test_a_failing_gate_leaves_yesterday_in_place(site: Site) -> None:
    """Also: a run with nothing new writes no export, and after the repair the next run goes through."""
    before, versions = site.current, site.versions
    apiary(site.home.root, "run")
    assert site.versions == versions
    assert site.current != before
    before = site.current

    with duckdb.connect(str(site.home.warehouse)) as connection:
        connection.execute("CREATE TABLE main.planted AS SELECT * FROM wire.llm_turns LIMIT 1")
        connection.execute("INSERT INTO wire.llm_turns SELECT * FROM main.planted")
    result = apiary(site.home.root, "run", check=False)
    assert result.returncode == 1
    assert "gate_llm_turns" in result.stderr
    assert "A turn is there once, at its origin." in result.stderr
    assert "Traceback" not in result.stderr
    assert (site.current, site.versions) == (before, versions)

    with duckdb.connect(str(site.home.warehouse)) as connection:
        connection.execute("DELETE FROM wire.llm_turns WHERE record_id IN (SELECT record_id FROM main.planted)")
        connection.execute("INSERT INTO wire.llm_turns SELECT * FROM main.planted")
        connection.execute("DROP TABLE main.planted")
    apiary(site.home.root, "run")
    assert site.versions == versions


@pytest.mark.long
def test_a_run_of_one_arrival_day(site: Site, tmp_path: Path) -> None:
    other = {"APIARY_STORE": site.home.store_url}
    apiary(tmp_path / "elsewhere", "run", "--date", "2025-06-01", environment=other)
    rows = json.loads(apiary(tmp_path / "elsewhere", "usage", "--by", "tenant", "--json").stdout)
    assert rows == [], "nothing arrived on that day"


def test_what_an_owner_takes_back_is_erased(site: Site) -> None:
    """The last test of this site: its only device goes, the bills keep their sums (more: test_erasure.py)."""
    versions = site.versions
    totals = [json.loads((site.home.exports / version).read_text())["totals"] for version in versions]
    device_id = enrolment.require(site.home).device_id
    apiary(site.home.root, "device", "consent", "withdraw")
    told = apiary(site.home.root, "run")
    assert "files and objects searched, nothing found" in told.stderr
    assert json.loads(apiary(site.home.root, "usage", "--by", "day", "--json").stdout) == []
    after = [json.loads((site.home.exports / version).read_text()) for version in versions]
    assert [manifest["totals"] for manifest in after] == totals
    assert any("erased" in manifest for manifest in after), "what named a user names nobody any more"
    apiary(site.home.root, "verify", site.home.exports)
    here = [path for path in site.home.root.rglob("*") if path.is_file() and site.home.device not in path.parents]
    for path in here:
        assert device_id.encode() not in path.read_bytes() or "receipts" in path.parts, path
    assert not [path for path in here if path.is_relative_to(site.home.root / "store" / "landing")]
