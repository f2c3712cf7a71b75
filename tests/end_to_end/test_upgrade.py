"""A home of an earlier release is upgraded in place: counts, consent, closed bytes and the chain of statements stay.

`releases/VERSION.tar.xz` is a home that the release itself made (freeze.py): two simulated devices, a third one with a
few turns, a closed month, and a batch that waits because the store was away. What can be made again (publication, dbt's
and Dagster's folders) is left out. Does not belong here: single migrations (tests/device).
"""

import hashlib
import json
import lzma
import sqlite3
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pipelines.contract.ddl import create_wire
from pipelines.contract.wire import contract_hash
from pipelines.device import consent, enrolment, grant, migrations, ship
from pipelines.home import Home
from pipelines.warehouse import kept
from tests.end_to_end import freeze
from tests.end_to_end.driving import apiary

RELEASES = Path(__file__).parent / "releases"
FROZEN = sorted(path.name.removesuffix(".tar.xz") for path in RELEASES.iterdir())
COUNTED = """
    SELECT tenant_id, agent_kind, model, sum(turns)::BIGINT, sum(input_tokens)::BIGINT, sum(output_tokens)::BIGINT,
        sum(reported_cost_usd)
    FROM marts.agg_usage_session_daily WHERE turns > 0 GROUP BY ALL ORDER BY ALL
"""
CLOSE = ("period", "close", "2026-10", "--as-of", "2026-11-06T00:00:00Z", "--actor", "ada", "--reason", "r")
Rows = list[tuple[Any, ...]]


@pytest.fixture
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Home:
    """The home of a release, moved to a folder of this test: an enrolment names the store by its path."""
    with lzma.open(RELEASES / f"{request.param}.tar.xz") as packed, tarfile.open(fileobj=packed) as archive:
        archive.extractall(tmp_path, filter="data")
    (root,) = tmp_path.iterdir()
    for path in root.glob("devices/*/device/enrolment.json"):
        path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"store": (root / "store").as_uri()}), "utf-8")
    return Home(root)


def rows(home: Home, sql: str) -> Rows:
    with duckdb.connect(str(home.warehouse)) as connection:
        return connection.execute(sql).fetchall()


def closed_bytes(home: Home) -> dict[str, str]:
    """Hashes of everything that was written for people, and of what was sealed."""
    files = [*(home.exports / "monthly").rglob("*"), *(home.books / "closed").rglob("*")]
    return {
        str(file.relative_to(home.root)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
        if file.is_file()
    }


@pytest.mark.parametrize("old", ["0.1.0"], indirect=True)
def test_a_state_without_a_version_keeps_its_consent_and_what_waits(old: Home) -> None:
    device = Home(old.root / "devices" / "ines-laptop")
    state = device.device / "state.db"
    with closing(sqlite3.connect(state)) as db:
        assert migrations.version_of(db) == 0
        granted = db.execute("SELECT * FROM consent").fetchall()
    assert "migrations 1 to" in apiary(device.root, "upgrade", "--check", check=False).stdout
    assert apiary(device.root, "upgrade").stdout.endswith("upgraded\n")
    assert "up to date" in apiary(device.root, "upgrade", "--check").stdout
    with closing(sqlite3.connect(state)) as db:
        assert migrations.version_of(db) == len(migrations.MIGRATIONS)
        assert db.execute("SELECT * FROM consent").fetchall() == granted
    with consent.open_state(device) as opened:
        now = consent.current(opened) if opened else None
    assert now is not None
    assert (now.state, now.history) == ("granted", "include")
    assert now.contract_hash != contract_hash(), "the contract has grown: the owner is asked again"
    # What waited was sealed under the earlier consent: the new grant reads it again, with the ids that it had.
    waiting = turn_ids((device.device / "spool" / "ready").glob("*llm_turns*.parquet"))
    sent = turn_ids(landing(old, device))
    assert (len(waiting), len(sent)) == (3, 5)
    grant.grant(device, [device.root / "hive"], history="include")
    ship.ship(device, [device.root / "hive"], is_forced=True)
    assert turn_ids(landing(old, device)) == sent | waiting


def landing(home: Home, device: Home) -> Iterator[Path]:
    """The turns of a device in the store."""
    return (home.root / "store" / "landing").rglob(f"{enrolment.require(device).device_id}/**/*llm_turns*.parquet")


def turn_ids(files: Iterable[Path]) -> set[str]:
    """The identities of turns."""
    found = duckdb.execute("SELECT record_id FROM read_parquet(?)", [[str(file) for file in files]]).fetchall()
    return {record for (record,) in found}


@pytest.mark.parametrize("old", ["0.1.0"], indirect=True)
@pytest.mark.parametrize("sums", [kept.difference, kept.turns_gone])
def test_what_an_erasure_keeps_is_what_the_daily_bill_of_0_1_0_held(old: Home, sums: Any) -> None:
    """Everything erased: from the rated lines comes to the last digit what the mart `mart_daily_billing` counted."""
    with duckdb.connect() as fresh:
        for statement in create_wire():
            fresh.execute(statement)
        fresh.execute(f"ATTACH '{old.warehouse}' AS old (READ_ONLY)")
        fresh.execute("CREATE SCHEMA marts")
        fresh.execute("CREATE TABLE marts.fct_rated_lines AS FROM old.marts.fct_rated_lines LIMIT 0")
        billed = fresh.execute(
            """
            SELECT tenant_id, usage_date, if(starts_with(model, 'k1_'), 'unknown', model) AS named, charge_class,
                sum(quantity), sum(unpriced_turns)::BIGINT
            FROM old.marts.mart_daily_billing GROUP BY ALL HAVING sum(quantity) <> 0 OR sum(unpriced_turns) <> 0
            """
        ).fetchall()
        tenants = {tenant for tenant, *_ in billed}
        found: dict[tuple[Any, ...], list[Any]] = {}
        for row in sums(fresh, tenants):
            component = "cache_write" if row["charge_class"].startswith("cache_write_") else row["charge_class"]
            key = (row["tenant_id"], row["usage_date"], row["model"], component)
            amounts = found.setdefault(key, [None, 0])
            if row["quantity"] is not None:
                amounts[0] = (amounts[0] or 0) + row["quantity"]
            amounts[1] += row["unpriced_turns"]
    assert {tuple(key): [quantity, unreported] for *key, quantity, unreported in billed} == found


@pytest.mark.long
@pytest.mark.parametrize("old", FROZEN, indirect=True)
def test_a_warehouse_is_upgraded_in_place(old: Home) -> None:
    before, sealed = rows(old, COUNTED), closed_bytes(old)
    assert before
    assert sealed
    is_of_another_build = "built by another release" in apiary(old.root, "upgrade", "--check", check=False).stdout
    close = apiary(old.root, *CLOSE, check=False).stderr
    assert ("the models of statements were built by another release" in close) == is_of_another_build
    told = apiary(old.root, "upgrade")
    assert told.stdout.endswith("upgraded\n" if is_of_another_build else "nothing to upgrade\n")
    assert ("full refresh" in told.stderr) == is_of_another_build
    assert rows(old, COUNTED) == before
    assert rows(old, "SELECT 1 FROM duckdb_tables() WHERE table_name = 'mart_daily_billing'") == [], "it was removed"
    after = closed_bytes(old)
    assert {name: after.get(name) for name in sealed} == sealed
    assert "0 faults" in apiary(old.root, "verify", old.exports).stdout
    assert "up to date" in apiary(old.root, "upgrade", "--check").stdout
    again = apiary(old.root, "run").stderr
    assert "full refresh" not in again
    assert rows(old, COUNTED) == before


@pytest.mark.long
def test_this_release_makes_the_home_that_the_next_is_tested_with(tmp_path: Path) -> None:
    home = Home(tmp_path / "apiary")
    freeze.write(home.root)
    assert rows(home, COUNTED)
    assert closed_bytes(home)
    assert len(turn_ids(home.root.glob("devices/*/device/spool/ready/*llm_turns*.parquet"))) == 3, "they wait"
