"""A home of an earlier release is upgraded in place: counts, consent, closed bytes and the chain of statements stay.

`releases/0.1.0.tar.xz` is a home that release 0.1.0 itself made, with its own simulator: two simulated devices, a third
one with a few turns, a closed month, and a batch that waits because the store was away. What can be made again
(publication, dbt's and Dagster's folders) is left out. Does not belong here: single migrations (tests/device).
"""

import hashlib
import lzma
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pipelines.contract.wire import contract_hash
from pipelines.device import consent, enrolment, grant, migrations, ship
from pipelines.home import Home
from pipelines.warehouse import lock
from tests.end_to_end.driving import apiary

ARCHIVE = Path(__file__).parent / "releases" / "0.1.0.tar.xz"
# The state of a device names its folders by absolute path, so a home is unpacked where it was made.
ROOT = Path("/tmp/apiary-release-0.1.0")
COUNTED = """
    SELECT tenant_id, agent_kind, model, sum(turns)::BIGINT, sum(input_tokens)::BIGINT, sum(output_tokens)::BIGINT,
        sum(reported_cost_usd)
    FROM marts.agg_usage_session_daily WHERE turns > 0 GROUP BY ALL ORDER BY ALL
"""
Rows = list[tuple[Any, ...]]


@pytest.fixture
def old() -> Iterator[Home]:
    if Path(tempfile.gettempdir()) != ROOT.parent:
        pytest.skip(f"a home of 0.1.0 can be unpacked in {ROOT.parent} only")
    with lock.hold(ROOT.with_suffix(".lock"), "another test"):
        shutil.rmtree(ROOT, ignore_errors=True)
        with lzma.open(ARCHIVE) as packed, tarfile.open(fileobj=packed) as archive:
            archive.extractall(ROOT.parent, filter="data")
        yield Home(ROOT)
        shutil.rmtree(ROOT)


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


def test_a_state_of_0_1_0_keeps_its_consent_and_what_waits(old: Home) -> None:
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
    # Once the owner has agreed, what waited is delivered, and nothing twice.
    grant.grant(device, [device.root / "hive"], history="include")
    ship.ship(device, [device.root / "hive"], is_forced=True)
    sent = (old.root / "store" / "landing").rglob(f"{enrolment.require(device).device_id}/**/*llm_turns*.parquet")
    turns = [
        row for file in sent for row in duckdb.execute("SELECT record_id FROM read_parquet(?)", [str(file)]).fetchall()
    ]
    assert (len(turns), len(set(turns))) == (8, 8)


@pytest.mark.long
def test_a_warehouse_of_0_1_0_is_upgraded_in_place(old: Home) -> None:
    before, sealed = rows(old, COUNTED), closed_bytes(old)
    assert before
    assert sealed
    assert "built by another release" in apiary(old.root, "upgrade", "--check", check=False).stdout
    told = apiary(old.root, "upgrade")
    assert told.stdout.endswith("upgraded\n")
    assert "full refresh" in told.stderr
    assert rows(old, COUNTED) == before
    after = closed_bytes(old)
    assert {name: after.get(name) for name in sealed} == sealed
    assert "0 faults" in apiary(old.root, "verify", old.exports).stdout
    assert "up to date" in apiary(old.root, "upgrade", "--check").stdout
    again = apiary(old.root, "run").stderr
    assert "full refresh" not in again
    assert rows(old, COUNTED) == before
