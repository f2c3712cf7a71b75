"""The whole job as a program: it publishes, it does nothing twice, and a gate that fails leaves yesterday in place."""

import json
import re
import shutil
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from pipelines.billing import books
from pipelines.billing.prove import prove
from pipelines.device import enrolment
from pipelines.errors import UsageError
from pipelines.home import Home
from pipelines.simulate.homes import HomeSpec, Truth, write_home
from pipelines.store import open_store
from tests.end_to_end.driving import apiary, device, send
from tests.end_to_end.rehearsal import REHEARSALS, Drill
from tests.scanner import find

pytestmark = pytest.mark.services
CREDENTIAL = "a-credential-that-only-the-environment-holds"


class Site:
    """One machine that is device and warehouse."""

    def __init__(self, root: Path) -> None:
        spec = HomeSpec(layout="v2", seed=11, timezone="Asia/Kolkata", first_day=date(2026, 3, 1), days=2)
        self.truth: Truth = write_home(root / "hive", spec)
        self.home = Home(root / "apiary")
        send(device(self.home.root, store=self.home.store_url, zone="Asia/Kolkata"), root / "hive")
        signed = {"billing_account_id": "A", "recorded_at": datetime(2026, 1, 1, tzinfo=UTC)}
        account = {"tenant_id": "acme", "name": "Acme", "reporting_timezone": "UTC", "charged_by": "tokens"}
        commitment = dict.fromkeys(books.PLAN_ITEMS.columns) | {
            "plan_item_id": "commitment", "item": "rated_cost", "pricing": "none", "included_units": 0,
            "commit_amount": Decimal(1000), "valid_from": date(2026, 1, 1),
        }  # fmt: skip
        books.append(books.ACCOUNTS, self.home.books, [signed | account | {"currency": "USD"}])
        books.append(books.PLAN_ITEMS, self.home.books, [commitment | signed])
        self.first = apiary(self.home.root, "run", environment={"AWS_SECRET_ACCESS_KEY": CREDENTIAL})

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
    """I6: the tokens of a day in the marts are those of the lines that were written, counted while writing."""
    result = apiary(site.home.root, "usage", "--by", "day", "--json")
    rows = json.loads(result.stdout)
    assert result.stderr == ""
    counts = ("turns", "input_tokens", "output_tokens")
    assert {row["day"]: tuple(row[name] for name in counts) for row in rows} == {
        day.isoformat(): tuple(getattr(usage, name) for name in counts) for day, usage in site.truth.by_utc_day.items()
    }
    cost = sum(Decimal(row["reported_cost_usd"]) for row in rows if row["reported_cost_usd"])
    assert cost == site.truth.total.reported_cost_usd


def test_the_run_tells_its_steps(site: Site) -> None:
    assert site.first.stdout == ""
    steps = (
        "load what arrived", "gate: arrival", "build and test what is billed", "gate: billing", "export",
        "build and test the analytics", "gate: departure", "publish",
    )  # fmt: skip
    told = [site.first.stderr.find(f"ok      {step}") for step in steps]
    assert -1 not in told
    assert told == sorted(told)


def test_a_run_with_nothing_new_does_nothing(site: Site) -> None:
    """No gate is judged, no model is built, nothing is published or exported again."""
    before, current, versions = site.home.warehouse.stat(), site.current, site.versions
    told = apiary(site.home.root, "run")
    assert "nothing has changed since the run that ended at" in told.stderr
    assert "ok      " not in told.stderr
    assert (site.home.warehouse.stat(), site.current, site.versions) == (before, current, versions)


def test_the_job_keeps_neither_content_nor_a_credential(site: Site) -> None:
    """Looked into: all that it keeps, dbt's artifacts and logs and Dagster's runs with their logs too."""
    kept = {path.relative_to(site.home.root).as_posix() for path in site.home.root.rglob("*")}
    for pattern in (r"dbt/.*manifest\.json", r"dbt/.*run_results\.json", r"dbt/.*\.sql", r"dagster/history/runs/.*\.db",
                    r"dagster/storage/.*\.err"):  # fmt: skip
        assert any(re.fullmatch(pattern, name) for name in kept), pattern
    private = [*site.truth.private[::4], CREDENTIAL]  # all of them: tests/device/test_privacy.py
    assert len(private) > 20
    assert find(site.home.root, private) == []
    assert not [word for word in private if word in site.first.stdout + site.first.stderr]


def test_every_mart_is_published_twice_the_same(site: Site) -> None:
    folder = site.home.published / "current"
    with duckdb.connect(str(folder / "marts.duckdb"), read_only=True) as connection:
        tables = [name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()]
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
    """E2: files = marts = events: every token that was used is in a cost row, or is said to have no price."""
    verified = apiary(site.home.root, "verify", str(site.home.exports))
    assert verified.stdout.splitlines()[-1].endswith(" 0 faults")
    tokens = Decimal(0)
    for manifest_path in (site.home.exports / "daily").rglob("manifest.json"):
        rows = pq.read_table(manifest_path.parent / "focus_cost_and_usage.parquet").to_pylist()
        unpriced = pq.read_table(manifest_path.parent / "unpriced.parquet").to_pylist()
        tokens += sum(row["ConsumedQuantity"] or 0 for row in rows) + sum(row["quantity"] for row in unpriced)
        assert json.loads(manifest_path.read_text())["rows"] == len(rows)
    assert tokens == site.truth.total.input_tokens + site.truth.total.output_tokens


# What stands in the first and not in the second.
CHAINS = {
    "rows without lines": (
        'SELECT "x_RowKey" FROM marts.export_focus_daily', "SELECT row_key FROM statements.int_billing__booked_lines"
    ),
    "lines without what is billed": (
        "SELECT line_id FROM statements.int_billing__booked_lines",
        "SELECT rated_line_id FROM marts.fct_rated_lines WHERE billed_cost IS NOT NULL"
        " UNION ALL SELECT charge_id FROM marts.fct_charges",
    ),
    "rated lines without a turn": (
        "SELECT DISTINCT record_id FROM marts.fct_rated_lines", "SELECT turn_id FROM marts.fct_llm_turns"
    ),
    "turns that no batch brought": (
        "SELECT turn_id FROM marts.fct_llm_turns",
        """
        SELECT DISTINCT record_id FROM (
            SELECT record_id, _manifest_key AS manifest_key, 'llm_turns' AS table_name FROM wire.llm_turns
            UNION ALL SELECT record_id, _manifest_key, 'node_steps' FROM wire.node_steps
        )
        JOIN wire.batches USING (manifest_key) JOIN wire.batch_objects USING (manifest_key, table_name)
        WHERE status = 'loaded' AND length(sha256) = 64
        """,
    ),
}  # fmt: skip


def test_e6_no_row_is_without_its_sources_and_no_source_without_a_row(site: Site) -> None:
    """E6: row, lines, turns, batches with the hash of their bytes, followed both ways over everything.

    A step that events took back, and a turn that is held, is no turn: that is the one way that is not looked at here.
    """
    with duckdb.connect(str(site.home.warehouse), read_only=True) as connection:
        for what, (one, other) in CHAINS.items():
            ways = [(one, other)] if what == "turns that no batch brought" else [(one, other), (other, one)]
            for left, right in ways:
                found = connection.execute(f"SELECT * FROM ({left}) EXCEPT SELECT * FROM ({right})").fetchall()
                assert found == [], what


def test_e6_a_row_is_proved_down_to_the_bytes_and_the_signature(site: Site) -> None:
    """E6: and the proof breaks where anything it stands on is another one."""
    store = open_store(site.home.store_url)
    with duckdb.connect(str(site.home.warehouse)) as connection:
        connection.execute("SET TimeZone = 'UTC'")

        def broken(key: str) -> list[str]:
            return [text for text, holds in prove(connection, key, site.home.exports, store).links if not holds]

        keys = connection.execute(
            'SELECT "SkuMeter", min("x_RowKey") FROM marts.export_focus_daily GROUP BY ALL ORDER BY ALL'
        ).fetchall()
        assert {meter for meter, _ in keys} >= {"input_uncached", "output", "rated_cost"}
        assert [broken(key) for _, key in keys] == [[]] * len(keys)
        key = dict(keys)["output"]
        said = prove(connection, key, site.home.exports, store).lines
        assert said[-1] == "proved: every link holds"
        approved = "decision when it was rated: approve"
        for link in ("statement: ", "BilledCost is the sum of ", "tokens at ", "turn ", "sha256 ", approved):
            assert [text for text in said if link in text], link
        for change, link in (
            ('UPDATE marts.export_focus_daily SET "BilledCost" = "BilledCost" + 1', "BilledCost is the sum"),
            ("UPDATE marts.fct_rated_lines SET list_cost = list_cost + 1", "line "),
            ("UPDATE marts.fct_llm_turns SET output_tokens = output_tokens + 1", "turn "),
            ("UPDATE wire.llm_turns SET output_tokens = output_tokens + 1", "record "),
            ("UPDATE wire.batch_objects SET sha256 = repeat('0', 64)", "object "),
            ("DELETE FROM wire.batch_objects", "batch "),
            ("UPDATE billing.price_book SET unit_price = unit_price + 1", "line "),
            ("DELETE FROM billing.price_book", "price "),
            ("UPDATE billing.price_decisions SET decision = 'reject'", "decision when it was rated: reject"),
            ("DELETE FROM billing.price_decisions", "decision: nobody"),
        ):
            connection.execute(f"BEGIN; {change}")
            assert any(text.startswith(link) for text in broken(key)), change
            connection.execute("ROLLBACK")
        charge = dict(keys)["rated_cost"]
        for change in ("UPDATE marts.fct_charges SET amount = amount + 1", "DELETE FROM billing.plan_items"):
            connection.execute(f"BEGIN; {change}")
            assert broken(charge), change
            connection.execute("ROLLBACK")
        with pytest.raises(UsageError, match="no row has the key"):
            prove(connection, "no such row", site.home.exports, store)


@pytest.fixture(scope="session")
def rehearsed(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a copy of the site: what is rehearsed there is no other test's."""
    folder = tmp_path_factory.mktemp("rehearsed")
    shutil.copytree(site.home.root, folder / "apiary", symlinks=True)
    (folder / "scratch").mkdir()
    return folder


@pytest.mark.parametrize("section", REHEARSALS, ids="-".join)
def test_the_commands_of_the_runbook_do_what_they_are_for(
    rehearsed: Path, section: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One after another, on one home: each makes its situation, and finds what the ones before left."""
    home = Home(rehearsed / "apiary")
    monkeypatch.setenv("APIARY_HOME", str(home.root))
    monkeypatch.setenv("APIARY_STORE", home.store_url)
    REHEARSALS[section](Drill(*section, home, rehearsed / "scratch", monkeypatch))


def test_i5_nothing_people_wrote_is_in_a_statement(site: Site) -> None:
    """I5: no text of a prompt or a person is in any file of a statement."""
    files = [path.read_bytes() for path in site.home.exports.rglob("*") if path.is_file()]
    assert files
    assert site.truth.private
    assert [text for text in site.truth.private if any(text.encode() in data for data in files)] == []


@pytest.mark.long
def test_a_failing_gate_leaves_yesterday_in_place(site: Site) -> None:
    """Also: a whole run with nothing new publishes and exports nothing; after the repair the next one goes through."""
    for forced in ([], ["--force"]):  # statements of what was closed before this test; marts that list them
        apiary(site.home.root, "run", *forced)
    before, versions = site.current, site.versions
    apiary(site.home.root, "run", "--force")
    assert (site.current, site.versions) == (before, versions)

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


def test_a_run_of_a_day_on_which_nothing_arrived_does_nothing(site: Site, tmp_path: Path) -> None:
    elsewhere = Home(tmp_path / "elsewhere")
    told = apiary(elsewhere.root, "run", "--date", "2025-06-01", environment={"APIARY_STORE": site.home.store_url})
    assert "2025-06-01 is none of them, nothing was done" in told.stderr
    assert not elsewhere.warehouse.exists()


@pytest.mark.long
def test_a_run_of_one_arrival_day_makes_the_same(site: Site, tmp_path: Path) -> None:
    """More: test_bill_alone.py, and test_services.py, where the UI launches a run of a day."""
    elsewhere = Home(tmp_path / "elsewhere")
    (arrived,) = {entry.received_at.date() for entry in open_store(site.home.store_url).list("landing/")}
    apiary(elsewhere.root, "run", "--date", arrived, environment={"APIARY_STORE": site.home.store_url})
    of_both = [json.loads(apiary(root, "usage", "--by", "tenant", "--json").stdout)
               for root in (elsewhere.root, site.home.root)]  # fmt: skip
    assert of_both[0] == of_both[1] != []


@pytest.mark.long
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
