"""A withdrawal from the command line to the confirmed receipt: enrol, grant, ship, load, withdraw, erase.

The fast form runs the erasure job alone, on an object server where there is one; the long ones the same on a folder,
and the whole job on both. Does not belong here: what is erased where (tests/warehouse_part/test_erase.py,
test_erasure.py).
"""

import io
import json
import re
import shlex
from collections.abc import Iterator
from contextlib import redirect_stdout
from datetime import UTC, date, datetime
from pathlib import Path

import boto3
import duckdb
import pytest

from pipelines import cli
from pipelines.billing import books
from pipelines.device import enrolment
from pipelines.home import ROOT, Home
from pipelines.simulate.homes import HomeSpec, write_home
from pipelines.store import open_store
from pipelines.warehouse import definitions, landing, load, registry
from tests.end_to_end.driving import apiary
from tests.object_server import NOT_INSTALLED, PROGRAM, object_server

USERS = ("ada-lovelace", "bob-the-operator")


class Site:
    """Two devices, a store and a warehouse, driven by the command line alone."""

    def __init__(self, root: Path, store_url: str, environment: dict[str, str]) -> None:
        self.root = root
        self.environment = environment | {"APIARY_STORE": store_url}
        self.store_url = store_url
        self.warehouse = Home(root / "apiary")
        (root / "key").write_bytes(b"k" * 32)
        for number, user in enumerate(USERS):
            spec = HomeSpec(layout="v2", seed=20 + number, timezone="UTC", first_day=date(2026, 3, 1), days=1)
            write_home(root / user, spec)
            enroll = ("enroll", "--tenant", "acme", "--user", user, "--timezone", "UTC", "--tenant-key", root / "key")
            self.device(user, *enroll)
            for _ in range(2):  # each grant leaves a probe
                self.device(user, "consent", "grant", "--yes", "--history", "include", "--home", root / user)
            self.device(user, "ship")

    def device(self, user: str, *arguments: object) -> str:
        """A command of the device; in this process, because there are many."""
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as said:
            for name, value in (self.environment | {"APIARY_HOME": str(self.root / f"device-{user}")}).items():
                patch.setenv(name, value)
            assert cli.main(["device", *map(str, arguments)]) == 0, said.getvalue()
        return said.getvalue()

    def run(self, *arguments: object) -> str:
        return apiary(self.warehouse.root, *arguments, environment=self.environment).stderr

    def status(self, user: str) -> dict[str, str]:
        return json.loads(self.device(user, "status", "--json"))

    def is_confirmed(self, user: str) -> None:
        """The owner reads when it was asked for and carried out, and what went."""
        before = self.status(user)
        told = self.device(user, "consent", "status")
        assert re.search(r"^consent \w+: granted at .*; withdrawn at .* is proven, of ", told, re.MULTILINE)
        assert (before["consent"], before["deletion_requested_at"] <= before["deletion_confirmed_at"]) == (
            "confirmed",
            True,
        )
        verified = self.device(user, "receipts", "verify")
        deleted = rf"deleted at {before['deletion_confirmed_at']} UTC at the request of this device's owner of "
        assert re.search(rf"^{deleted}{before['deletion_requested_at']} UTC: \d+ objects of the store", verified)
        assert "0 are the same in the store, 14 were deleted by request and are gone" in verified

    def nothing_is_left_of(self, user: str) -> None:
        device_id = enrolment.require(Home(self.root / f"device-{user}")).device_id
        store = open_store(self.store_url)
        left = [
            entry.key
            for entry in store.list("")
            if device_id in entry.key or device_id.encode() in store.get(entry.key)
        ]
        assert [key for key in left if not key.startswith("receipts/")] == []
        for path in self.warehouse.root.rglob("*"):
            assert (
                not path.is_file()
                or path.is_relative_to(self.warehouse.root / "store")
                or (device_id.encode() not in path.read_bytes())
            ), path


def runbook(heading: str) -> list[list[str]]:
    """The commands of a section of the runbook."""
    section = (ROOT / "docs" / "runbook.md").read_text("utf-8").split(f"{heading}\n", 1)[1]
    block = section.split("```\n")[1]
    commands = [shlex.split(line) for line in block.splitlines()]
    assert commands
    assert all(words[0] == "apiary" for words in commands)
    return [words[1:] for words in commands]


@pytest.fixture(params=["server", pytest.param("folder", marks=[pytest.mark.long] if PROGRAM.exists() else [])])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    if request.param == "folder":
        yield Site(tmp_path, (tmp_path / "store").as_uri(), {})
        return
    if not PROGRAM.exists():
        pytest.skip(NOT_INSTALLED)
    with object_server(tmp_path / "server") as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket="lake")
        yield Site(tmp_path, "s3://lake/x", server.environment)


@pytest.mark.services
def test_a_withdrawal_is_confirmed(site: Site) -> None:
    """Also while another request cannot be finished: it waits with its reason, and the job is green."""
    ada, bob = USERS
    home = site.warehouse
    home.warehouse.parent.mkdir(parents=True)
    with duckdb.connect(str(home.warehouse)) as connection:
        load.prepare(connection)
        store = open_store(site.store_url)
        admission = registry.admission_policy(home.warehouse.parent, store)
        assert load.load(connection, store, landing.pending(store, ()), admission=admission).loaded == 2
        (session,) = connection.execute(
            "SELECT min(session_id) FROM wire.sessions WHERE _user_id = ? AND starts_with(session_id, 'session_')",
            [bob],
        ).fetchall()[0]
    model = {
        "schema": "marts", "name": "built", "resource_type": "model", "raw_code": "select 1", "columns": {},
        "config": {"materialized": "incremental", "meta": {}}, "depends_on": {"macros": [], "nodes": []},
    }  # fmt: skip
    parsed = {"nodes": {"model.apiary.built": model}, "macros": {}}
    definitions.record(home.warehouse, parsed, built=["marts.built"])  # as every build does
    (home.root / "notes.txt").write_text(f"look at {session}")
    settled = {  # by an owner who keeps the books as well: her signature is no device's
        "settlement_id": "s", "billing_account_id": "A", "billing_period": date(2026, 3, 1), "kind": "late",
        "model": "m", "reason": "its price is being agreed", "recorded_by": ada, "recorded_at": datetime.now(UTC),
    }  # fmt: skip
    books.append(books.SETTLEMENTS, home.books, [settled])
    simulated = home.devices / "laptop" / "hive" / "events.jsonl"  # what `make run` keeps there is a device's own
    simulated.parent.mkdir(parents=True)
    simulated.write_text(session)
    for user in USERS:
        site.device(user, "consent", "withdraw")
    assert site.status(ada)["deletion_confirmed_at"] is None
    told = apiary(home.root, "erase", "--pending", environment=site.environment, check=False)
    assert told.returncode == 1, "one of two waits"
    assert re.search(r"request \w+ waits: what should be erased is still in .*notes\.txt: remove it, then", told.stderr)
    assert "FAILED" not in told.stderr
    site.is_confirmed(ada)
    site.nothing_is_left_of(ada)
    assert "not carried out yet" in site.device(bob, "consent", "status")
    (home.root / "notes.txt").unlink()
    for command in runbook("An erasure waits"):
        apiary(home.root, *command, environment=site.environment)
    site.is_confirmed(bob)
    site.nothing_is_left_of(bob)


@pytest.mark.long
def test_a_withdrawal_is_confirmed_by_the_whole_job_and_three_more_runs_are_green(site: Site) -> None:
    ada, bob = USERS
    site.run("run")
    site.device(ada, "consent", "withdraw")
    assert "files and objects searched, nothing found" in site.run("run")
    site.is_confirmed(ada)
    site.nothing_is_left_of(ada)
    for _ in range(3):
        assert "FAILED" not in site.run("run")
    usage = apiary(site.warehouse.root, "usage", "--by", "user", "--json", environment=site.environment).stdout
    assert [row["user"] for row in json.loads(usage)] == [bob]
    assert site.status(bob)["consent"] == "granted"
