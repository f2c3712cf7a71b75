"""Erasure through the whole job: an owner withdraws, a user is erased; what is left is counted, billed and proven.

Does not belong here: every way in which it can be cut off (tests/warehouse_part/test_erase.py).
"""

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from pipelines.device import consent, enrolment, outbox
from pipelines.home import Home
from pipelines.simulate.homes import HomeSpec, write_home
from pipelines.store import open_store
from tests.end_to_end.driving import apiary, device, send

pytestmark = pytest.mark.long

USERS = ("ada-lovelace", "bob-the-operator", "carol-of-finance")


class Fleet:
    """Three devices of one tenant, their store, and a warehouse elsewhere."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = Home(root / "apiary")
        self.devices: dict[str, Home] = {}
        key = root / "key"
        key.write_bytes(b"k" * 32)
        for number, user in enumerate(USERS):
            spec = HomeSpec(layout="v2", seed=20 + number, timezone="UTC", first_day=date(2026, 3, 1), days=1)
            write_home(root / user, spec)
            self.devices[user] = device(root / f"device-{user}", store=self.home.store_url, user=user, key=key)
            send(self.devices[user], root / user)
        # Without an account nothing is billed.
        signed = ("--from", "2026-01-01", "--by", "grace", "--approved-by", "rosa")
        apiary(self.home.root, "account", "open", "--tenant", "acme", "--account", "acct-acme", *signed)
        apiary(self.home.root, "run")

    def usage(self) -> dict[str, int]:
        rows = json.loads(apiary(self.home.root, "usage", "--by", "user", "--json").stdout)
        return {row["user"]: row["turns"] for row in rows}

    def totals(self) -> list[tuple[object, ...]]:
        """What is rated, and what is kept of the erased, by day and component; models that a person named together."""
        with duckdb.connect(str(self.home.published / "current" / "marts.duckdb"), read_only=True) as connection:
            return connection.execute(
                """
                WITH counted AS (
                    SELECT usage_date, model, component, quantity, 0 AS unreported FROM fct_rated_lines
                    UNION ALL
                    SELECT usage_date, model, 'reported_cost', reported_cost_usd, (reported_cost_usd IS NULL)::BIGINT
                    FROM fct_rated_lines WHERE component = 'output'
                    UNION ALL
                    SELECT usage_date, model, component, quantity, unreported_turns FROM agg_erased_usage_daily
                )
                SELECT usage_date, if(starts_with(model, 'k1_'), 'unknown', model) AS named, component,
                    sum(quantity::DECIMAL(38, 20)), sum(unreported)
                FROM counted GROUP BY ALL HAVING sum(quantity) <> 0 OR sum(unreported) <> 0 ORDER BY ALL
                """
            ).fetchall()

    def statements(self) -> int:
        """Manifests of statements, each of which verifies."""
        apiary(self.home.root, "verify", self.home.exports)
        return len([*self.home.exports.rglob("manifest.json")])

    def texts(self) -> dict[str, bytes]:
        """Every file under APIARY_HOME, what is compressed in it opened too."""
        found = {}
        for path in (path for path in self.home.root.rglob("*") if path.is_file() and not path.is_symlink()):
            text = path.read_bytes()
            if path.suffix == ".parquet":
                text += str(pq.read_table(path).to_pylist()).encode()
            if path.suffix == ".duckdb":
                with duckdb.connect(str(path), read_only=True) as connection:
                    tables = connection.execute("SELECT schema_name, table_name FROM duckdb_tables()").fetchall()
                    for schema, table in tables:
                        text += str(connection.execute(f"FROM {schema}.{table}").fetchall()).encode()
            found[str(path.relative_to(self.home.root))] = text
        return found

    def sessions_of(self, user: str) -> list[str]:
        with duckdb.connect(str(self.home.published / "current" / "marts.duckdb"), read_only=True) as connection:
            found = connection.execute("SELECT session_id FROM dim_sessions WHERE user_id = ?", [user]).fetchall()
        return [session for (session,) in found]


def left_in(texts: dict[str, bytes], needles: list[str]) -> list[str]:
    return [
        name
        for name, text in texts.items()
        if not name.startswith("store/receipts/") and any(needle.encode() in text for needle in needles)
    ]


def test_an_owner_withdraws_and_a_user_is_erased(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    before, totals = fleet.usage(), fleet.totals()
    assert set(before) == set(USERS)
    ada, bob = fleet.devices["ada-lovelace"], fleet.devices["bob-the-operator"]
    ids = {user: enrolment.require(home).device_id for user, home in fleet.devices.items()}
    gone = [ids["ada-lovelace"], "ada-lovelace", *fleet.sessions_of("ada-lovelace")]
    assert len(gone) > 4
    assert [name for name in left_in(fleet.texts(), gone) if name.startswith("exports/")], "it is there before"
    assert fleet.statements() > 0
    copy = {key: data for key, data in objects(fleet.home) if ids["ada-lovelace"] in key}

    # The owner withdraws on the device; the next run of the warehouse erases and answers.
    with consent.open_state(ada) as state:
        assert state is not None
        consent.withdraw(state, enrolment.require(ada), now=datetime.now(UTC))
        assert outbox.send(state, open_store(fleet.home.store_url)) == 1
    told = apiary(fleet.home.root, "run")
    assert "files and objects searched, nothing found" in told.stderr
    receipts = [key for key, _ in objects(fleet.home) if key.startswith(f"receipts/v1/eu/acme/{ids['ada-lovelace']}/")]
    assert len(receipts) == 1
    assert fleet.usage() == {user: turns for user, turns in before.items() if user != "ada-lovelace"}
    assert fleet.totals() == totals, "what was counted stays, without names"
    assert fleet.statements() > 0
    assert left_in(fleet.texts(), gone) == []

    # Her batches come back with a copy of the landing: refused, and swept by the same run.
    store = open_store(fleet.home.store_url)
    for key, data in copy.items():
        store.put(key, data)
    # A user is erased by the data team; the warehouse is then made again from what is left of the landing.
    gone += [ids["bob-the-operator"], "bob-the-operator", *fleet.sessions_of("bob-the-operator")]
    erased = apiary(fleet.home.root, "erase", "--tenant", "acme", "--user", "bob-the-operator", "--yes")
    _, _, _, searched, found, _ = erased.stdout.splitlines()[-1].split()
    assert searched != "0"
    assert found == "0"
    assert fleet.usage() == {"carol-of-finance": before["carol-of-finance"]}
    assert fleet.totals() == totals
    assert left_in(fleet.texts(), gone) == []
    fleet.home.warehouse.unlink()
    apiary(fleet.home.root, "run")
    assert fleet.usage() == {"carol-of-finance": before["carol-of-finance"]}
    assert fleet.totals() == totals
    assert left_in(fleet.texts(), gone) == []
    assert rated_users(fleet.home) == {"carol-of-finance"}
    assert send(bob, tmp_path / "bob-the-operator").batches > 0, "his device does not know yet"
    apiary(fleet.home.root, "run")
    assert fleet.usage() == {"carol-of-finance": before["carol-of-finance"]}
    assert left_in(fleet.texts(), gone) == []


def objects(home: Home) -> list[tuple[str, bytes]]:
    store = open_store(home.store_url)
    return [(entry.key, store.get(entry.key)) for entry in store.list("")]


def rated_users(home: Home) -> set[str]:
    """Who used what is rated; what is kept of the erased names nobody."""
    with duckdb.connect(str(home.published / "current" / "marts.duckdb"), read_only=True) as connection:
        kept = connection.execute("SELECT sum(quantity) FROM agg_erased_usage_daily").fetchall()
        users = connection.execute("SELECT DISTINCT user_id FROM fct_rated_lines").fetchall()
    assert all(isinstance(quantity, Decimal) for (quantity,) in kept)
    return {user for (user,) in users}
